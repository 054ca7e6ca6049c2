"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def _directory(variable: str, what: str) -> Path:
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        pytest.skip(f"{what} not available: set {variable} to its directory")
    return Path(value)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Directory of the real cells used by tests and benchmarks."""
    return _directory("SCFOUND_ATAC_TEST_DATA", "real test data")


@pytest.fixture(scope="session")
def oracle_dir() -> Path:
    """Directory of the reference outputs of the released model code."""
    return _directory("SCFOUND_ATAC_TEST_ORACLES", "reference outputs")
