"""Loggers of Lightning for loops that are no Trainer of Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self


class Loggers:
    """The loggers that a user gave.

    Parameters
    ----------
    given
        A logger of `lightning.pytorch.loggers` or several; None or a truth value for none, since the history is kept in any case.

    Raises
    ------
    TypeError
        If something is no logger.
    """

    def __init__(self, given: Any = None) -> None:
        loggers = [] if given is None or isinstance(given, bool) else given
        self.all = list(loggers) if isinstance(loggers, list | tuple) else [loggers]
        for logger in self.all:
            if not hasattr(logger, "log_metrics"):
                msg = f"logger= takes loggers of lightning.pytorch.loggers, such as CSVLogger('folder'); got {type(logger).__name__}."
                raise TypeError(msg)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log the finite values of a step or of an epoch."""
        finite = {name: float(value) for name, value in values.items() if np.isfinite(value)}
        for logger in self.all:
            logger.log_metrics(finite, step=step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Write what is not written yet."""
        for logger in self.all:
            logger.finalize("success" if error is None else "failed")
