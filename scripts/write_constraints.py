"""Print constraints.txt from what `pip freeze --exclude-editable` says in a tested Python 3.11 and a tested Python 3.12 environment.

    python scripts/write_constraints.py freeze311.txt freeze312.txt > constraints.txt

A package with one version in both is pinned everywhere; otherwise each version is pinned for its side of Python 3.12.
"""

from __future__ import annotations

import sys
from pathlib import Path

HEADER = """\
# What was tested, pinned. Python 3.11 has the last releases of the scverse packages that support it; Python 3.12 has the newest.
# Written by scripts/write_constraints.py. torch comes without a build label, so that pip may take a CPU or a CUDA build.
"""
SKIPPED = ("cuda-", "nvidia-", "triton", "pip", "setuptools")  # belong to a build of torch or to the environment


def read_pins(path: str) -> dict[str, str]:
    pins = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        name, found, version = line.partition("==")
        if found and not name.lower().startswith(SKIPPED):
            pins[name.lower().replace("_", "-")] = version.partition("+")[0]
    return pins


def main() -> None:
    old, new = map(read_pins, sys.argv[1:3])
    print(HEADER, end="")
    for name in sorted(old | new):
        if old.get(name) == new.get(name):
            print(f"{name}=={old[name]}")
            continue
        if name in old:
            print(f"{name}=={old[name]}; python_version < '3.12'")
        if name in new:
            print(f"{name}=={new[name]}; python_version >= '3.12'")


if __name__ == "__main__":
    main()
