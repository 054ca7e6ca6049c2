"""Build the training corpus: real cells and simulated studies.

python scripts/build_corpus.py --data DIR --out DIR --n-studies 60
"""

from __future__ import annotations

from scfound_atac.data._build_corpus import main

if __name__ == "__main__":
    main()
