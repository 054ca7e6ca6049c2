"""Make the scripts importable, as they are when one of them is run."""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[3] / "scripts" / "corpus"
sys.path.insert(0, str(SCRIPTS))
