from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


@pytest.fixture(scope="session")
def kill_after_checkpoint() -> Callable[[Sequence[str], Mapping[str, str], Path], None]:
    """Run a command, and kill it without warning a moment after the file of its first checkpoint is there."""

    def run(command: Sequence[str], environment: Mapping[str, str], checkpoint: Path) -> None:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not checkpoint.exists():
            assert process.poll() is None, "ended before its first checkpoint"
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    return run
