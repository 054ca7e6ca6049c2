"""OCR names to coordinates."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ._chromosomes import normalize_chromosomes

if TYPE_CHECKING:
    from collections.abc import Iterable

_PREFIX = re.compile(r"(?:grch3[78](?:\.p\d+)?|hg\d\d|mm\d+|grcm\d+|t2t|chm13)", re.IGNORECASE)
_CONTIG = r"(?P<chrom>[A-Za-z0-9][A-Za-z0-9._]*)"
_NAME = re.compile(
    r"(?:(?:[Gg][Rr][Cc][Hh]38|[Hh][Gg]38)[_-]+)?"
    + _CONTIG
    + r"(?P<gap>[:_-])(?P<start>\d{1,12})(?P<dash>[_-])(?P<end>\d{1,12})"
)
_PARTS = list(_NAME.groupindex)
_NOTHING = (None,) * len(_PARTS)
_BYTES = ("b'", 'b"')
# "chr1_5_10_20" could be a contig chr1_5 or a range with a column too many: refused.
_NUMBERED = re.compile(r"(?:chr)?(?:\d+|x|y|m|mt)[._]\d+", re.IGNORECASE)
_FIX = 'Give coordinates instead: set var["chrom"], var["start"] and var["end"] (0-based, half-open).'


def _quote(names: pd.Series, bad: np.ndarray) -> str:
    return ", ".join(repr(name) for name in names[bad].iloc[:3])


def _as_text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def parse_names(names: Iterable[Any]) -> pd.DataFrame:
    """Read coordinates from OCR names.

    Understood are ``chr1:1-2``, ``chr1-1-2`` and ``chr1_1_2``, each also without ``chr``, with a ``GRCh38_``, ``GRCh38-``,
    ``hg38_`` or ``hg38-`` in front, as bytes, or as the text of bytes (``"b'chr1:1-2'"``). Contigs may hold underscores.

    Parameters
    ----------
    names
        n OCR names.

    Returns
    -------
    Columns ``chrom`` (as :func:`normalize_chromosomes` spells it), ``start`` and ``end`` (int64, as written in the name);
    rows 0 to n - 1.

    Raises
    ------
    ValueError
        If a name cannot be read without doubt, names another genome build, or its end is not beyond its start.
    """
    texts = [_as_text(name) for name in names]
    text = pd.Series(texts, dtype=object)
    if not len(text):
        return pd.DataFrame(
            {"chrom": np.array([], dtype=object), "start": np.array([], np.int64), "end": np.array([], np.int64)}
        )
    found = [_NAME.fullmatch(name[2:-1] if name.startswith(_BYTES) else name) for name in texts]
    parts = pd.DataFrame([match.groups() if match else _NOTHING for match in found], columns=_PARTS, dtype=object)

    codes, contigs = pd.factorize(parts["chrom"])
    other_build = [bool(_PREFIX.match(contig)) and not _PREFIX.fullmatch(contig) for contig in contigs]
    unclear = [bool(_NUMBERED.fullmatch(contig) or _PREFIX.fullmatch(contig)) for contig in contigs]
    # Unread names have code -1, which takes the appended last entry.
    foreign = np.array([*other_build, False])[codes]
    if foreign.any():
        msg = (
            f"{foreign.sum()} of {len(text)} OCR names carry another genome build than GRCh38, among them "
            f"{_quote(text, foreign)}. Keep the OCRs of GRCh38 alone, or move hg19 ones with "
            'sfa.pp.liftover_ocrs(adata, chain="hg19ToHg38.over.chain.gz") after naming them without the build.'
        )
        raise ValueError(msg)
    bad = np.array([*unclear, True])[codes]
    gap, dash = parts["gap"].to_numpy(), parts["dash"].to_numpy()
    bad |= ~np.where(gap == "_", dash == "_", dash == "-")
    if bad.any():
        msg = f"{bad.sum()} of {len(text)} OCR names are not of the form chr1:100-200, among them {_quote(text, bad)}. {_FIX}"
        raise ValueError(msg)

    start, end = parts["start"].astype(np.int64), parts["end"].astype(np.int64)
    empty = (end <= start).to_numpy()
    if empty.any():
        msg = f"{empty.sum()} of {len(text)} OCR names have an end not beyond their start, among them {_quote(text, empty)}. {_FIX}"
        raise ValueError(msg)
    return pd.DataFrame({"chrom": normalize_chromosomes(parts["chrom"]), "start": start, "end": end})
