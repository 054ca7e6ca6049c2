from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scfound_atac import hub
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


RUN = """
corpus: {corpus}
output: {output}
network: {{kind: region-set, n_factors: 50, d_cell: 8, d_hidden: 8}}
objectives: {{profile: 1.0}}
batch: {{n_cells: 8, crop_size: 60, validation_fraction: 0.2}}
n_steps: {n_steps}
checkpoint_every: 2
validate_every: 2
n_validation_batches: 1
accelerator: cpu
devices: 1
"""


def test_pretrain_from_the_command_line(corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run, what it leaves behind, the same run gone on with, and one that is begun anew."""
    monkeypatch.setenv("SCFOUND_ATAC_PROGRESS_BAR", "0")
    output = tmp_path / "run"

    def steps_of(n_steps: int, *arguments: str) -> list[int]:
        (tmp_path / "run.yaml").write_text(RUN.format(corpus=corpus_folder, output=output, n_steps=n_steps))
        result = CliRunner().invoke(app, ["pretrain", str(tmp_path / "run.yaml"), *arguments])
        assert result.exit_code == 0, result.output
        with (output / "log.csv").open(newline="") as file:
            return [int(row["step"]) for row in csv.DictReader(file)]

    assert steps_of(2) == [1, 2]
    first = hub.load(output / "best")
    assert first.model_class == "RegionSet"
    assert first.training["config"]["n_steps"] == 2
    assert steps_of(2) == [1, 2]  # nothing was left to do
    assert hub.load(output / "best").sha256 == first.sha256
    began = (output / "last.ckpt").stat().st_mtime_ns
    assert steps_of(2, "--no-resume") == [1, 2]
    assert (output / "last.ckpt").stat().st_mtime_ns > began
