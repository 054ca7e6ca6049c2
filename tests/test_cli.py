from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scfound_atac.cli import app


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from scfound_atac.cli import app;"
        "assert 'Pretrain' in CliRunner().invoke(app, ['--help']).output; print(*sys.modules, sep='\\n')"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "scvi", "lightning", "anndata"} & set(loaded)


def test_errors_of_the_user_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        f"corpus: {tmp_path}/none\noutput: {tmp_path}/run\nnetwork: {{kind: chromfound}}\n"
    )
    result = CliRunner().invoke(app, ["pretrain", str(tmp_path / "run.yaml")])
    assert result.exit_code == 1
    assert result.stderr == f"Error: No corpus.yaml in {tmp_path}/none: give the folder of a corpus.\n"


@pytest.mark.parametrize(("arguments", "resume"), [([], True), (["--no-resume"], False)])
def test_pretrain_is_called(monkeypatch: pytest.MonkeyPatch, arguments: list[str], resume: bool) -> None:
    calls = []

    def pretrain(config: Path, *, resume: bool) -> Path:
        calls.append((config, resume))
        return Path("run/best")

    monkeypatch.setattr("scfound_atac.train.pretrain.pretrain", pretrain)
    result = CliRunner().invoke(app, ["pretrain", "run.yaml", *arguments])
    assert result.exit_code == 0, result.output
    assert calls == [(Path("run.yaml"), resume)]
