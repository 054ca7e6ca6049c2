"""The schedule of the learning rate."""

from __future__ import annotations

import math


def warmup_cosine(step: int, n_warmup_steps: int, n_steps: int) -> float:
    """Fraction of the maximum learning rate at `step`, counted from 0: linear warm-up, then a cosine to zero at `n_steps`.

    The warm-up takes `n_warmup_steps` steps, but at most a tenth of the run.
    """
    warmup = min(n_warmup_steps, max(1, n_steps // 10))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, n_steps - warmup))))
