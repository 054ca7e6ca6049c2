"""The networks; they only need torch, and do not know AnnData."""

from __future__ import annotations

from .chromfound import ChromFoundConfig, ChromFoundNet
from .epifoundation import EpiFoundationConfig, EpiFoundationNet
from .region_set import RegionSetConfig, RegionSetNet
from .selective_scan import selective_scan

__all__ = [
    "ChromFoundConfig",
    "ChromFoundNet",
    "EpiFoundationConfig",
    "EpiFoundationNet",
    "RegionSetConfig",
    "RegionSetNet",
    "selective_scan",
]
