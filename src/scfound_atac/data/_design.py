from __future__ import annotations


def check_design(sample, ocrs):
    return None
