"""Every notebook runs from top to bottom and is stored without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

import scfound_atac

TUTORIALS = Path(__file__).parents[1] / "tutorials"
NOTEBOOKS = sorted(TUTORIALS.glob("*.ipynb"))
# What a notebook needs beside the package, and the extra that brings it.
OPTIONAL = {
    "multiome": {"muon": "multiome"},
    "many_samples": {"scib_metrics": "integration", "harmonypy": "integration"},
}
BUNDLED = Path(scfound_atac.__file__).parent / "hub" / "bundled" / "chromfound-bmmc"


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert [cell for cell in code if cell.outputs or cell.execution_count is not None] == []


@pytest.mark.slow
@pytest.mark.skipif(not BUNDLED.is_dir(), reason="the package was built without its bundled weights")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    for package, extra in OPTIONAL.get(path.stem, {}).items():
        pytest.importorskip(package, reason=f"{package} is optional: pip install 'scfound-atac[{extra}]'")
    # the kernel must find the package that is under test, installed or not
    monkeypatch.setenv("PYTHONPATH", str(Path(scfound_atac.__file__).parents[1]))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
