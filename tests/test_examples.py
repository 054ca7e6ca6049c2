"""Examples of docstrings, and the Python code of README and documentation, run as they stand on cells of the package.

Each block runs by itself, in a folder of its own, with the names that the text around it takes for granted (`world`). What a reader of the
page would see fail, fails here. Statements that cannot run in a test are listed with the reason in `LEFT_OUT`, and shown as skipped.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import inspect
import io
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import scfound_atac as sfa

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
ROOMS = ("bench", "datasets", "genome", "get", "hub", "model", "nn", "pl", "pp", "tl")
LEFT_OUT = {
    "table = sfa.bench.integration(adata, 'cell_type', 'sample', n_cells=500)": "needs scib-metrics, which is optional",
    "table = sfa.bench.integration(adata, 'cell_type', 'donor', methods=['X_sfa'])": "needs scib-metrics, which is optional",
    **dict.fromkeys(
        (
            "import harmonypy",
            "harmony = harmonypy.run_harmony(adata.obsm['X_sfa'], adata.obs, ['donor'])",
            "adata.obsm['X_sfa_harmony'] = harmony.Z_corr",
        ),
        "needs harmonypy, which is optional",
    ),
    **dict.fromkeys(
        (
            "mu.pp.neighbors(mdata, key_added='wnn')",
            "sc.tl.leiden(mdata, neighbors_key='wnn', flavor='igraph', n_iterations=2)",
            "sc.tl.umap(mdata, neighbors_key='wnn')",
        ),
        "is compiled for half a minute, and the notebook multiome.ipynb runs it",
    ),
    "mu.pl.embedding(mdata, basis='X_umap', color=['MS4A1', 'MS4A1_predicted'])": "draws a UMAP that is not there",
    **dict.fromkeys(
        () if find_spec("muon") else ("import muon as mu", "mu.pp.intersect_obs(mdata)"),
        "needs muon, which is optional",
    ),
    "sfa.hub.fetch('chromfound')": "downloads weights that are not in the package",
    "sfa.tl.embed(adata, model='chromfound')": "needs weights that are not in the package",
}
# On fewer cells: they compare methods at several depths, or train a network.
FEW_CELLS = {
    **dict.fromkeys(["README.md:54", "benchmark.md:14", "usage.md:46", "bench.compare", "pl.benchmark"], 60),
    **dict.fromkeys(["usage.md:332", "training.md:151", "model.ChromFound"], 16),
    **dict.fromkeys(["usage.md:345", "model.EpiFoundation"], 24),
}
SLOW = {
    *FEW_CELLS,
    *("README.md:6", "index.md:6", "usage.md:24", "usage.md:69"),  # UMAP is compiled
    "usage.md:38",
    "usage.md:309",  # a network is trained
    *("usage.md:195", "usage.md:214"),  # neighbours are compiled
    "benchmark.md:25",
    "tl.embed_joint",
    "pl.embedding_comparison",
}
N_CELLS = 120


def code_on_pages() -> dict[str, str]:
    """Blocks of Python by page and line."""
    found = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.finditer(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
            found[f"{page.name}:{text[: block.start()].count(chr(10)) + 1}"] = block[1]
    return found


def code_in_docstrings() -> dict[str, list[doctest.Example]]:
    """Examples by the public name of what they belong to, methods of classes included."""
    found = {}
    for room in ROOMS:
        module = import_module(f"scfound_atac.{room}")
        for name in module.__all__:
            value = getattr(module, name)
            members = {f"{room}.{name}": value}
            if inspect.isclass(value):
                public = {key: x for key, x in vars(value).items() if not key.startswith("_")}
                members |= {f"{room}.{name}.{key}": x for key, x in public.items()}
            for where, member in members.items():
                doc = inspect.getdoc(member) if callable(member) or isinstance(member, classmethod) else None
                if doc and (examples := doctest.DocTestParser().get_examples(doc)):
                    found[where] = examples
    return found


def marked(places: dict[str, Any]) -> list[Any]:
    return [pytest.param(where, marks=pytest.mark.slow if where in SLOW else ()) for where in places]


CODE, EXAMPLES = code_on_pages(), code_in_docstrings()


@pytest.fixture(scope="module")
def sample() -> md.MuData:
    """Some of the package's cells, the deepest ones, of four donors."""
    whole = sfa.datasets.pbmc_multiome_sample()
    n_open = np.diff(whole["atac"].X.tocsr().indptr)
    mdata = whole[np.sort(np.argsort(-n_open)[:N_CELLS])].copy()
    donor = np.array([f"donor{1 + i % 4}" for i in range(N_CELLS)])
    for table in (mdata, mdata["atac"], mdata["rna"]):
        table.obs["donor"] = donor
    atac = mdata["atac"]
    atac.layers["counts"] = atac.X.copy()
    atac.layers["prepared"] = np.log1p(atac.X.astype(np.float32))
    mdata["rna"].X = np.maximum(mdata["rna"].X, 0)  # it was denoised, and a little of it is negative
    mdata["rna"].var["chrom"] = "chr1"
    return mdata


@pytest.fixture(scope="module")
def epifoundation() -> tuple[Any, Any]:
    """A small untrained network whose vocabulary are the peaks of the package's cells."""
    import torch

    from scfound_atac.data.build_vocabularies import build_vocabularies
    from scfound_atac.nn import EpiFoundationConfig, EpiFoundationNet

    vocabularies = build_vocabularies(sfa.datasets.pbmc_multiome_sample()["atac"].var, (), {})
    sizes = {f"n_{name}": len(getattr(vocabularies, name)) for name in ("peaks", "chromosomes", "genes")}
    torch.manual_seed(0)
    config = EpiFoundationConfig(**sizes, d_model=16, n_layers=1, n_heads=2, d_feed_forward=16)
    return EpiFoundationNet(config).eval(), vocabularies


@pytest.fixture
def where(request, sample, monkeypatch) -> str:
    """The place of an example; if it is to run on few cells, those are all that the package has."""
    if request.param in FEW_CELLS:
        few = sample[: FEW_CELLS[request.param]]
        monkeypatch.setattr(sfa.datasets, "pbmc_multiome_sample", few.copy)
    return request.param


@pytest.fixture
def world(request, sample, epifoundation, tmp_path, monkeypatch) -> Iterator[dict[str, Any]]:
    """Names and files that the examples take for granted."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sfa.settings, "progress_bar", False)
    monkeypatch.setattr(sfa.settings, "cache_dir", tmp_path / "cache")
    if "where" in request.fixturenames:
        sample = sample[: FEW_CELLS.get(request.getfixturevalue("where"), N_CELLS)].copy()
    net, vocabularies = epifoundation
    sfa.hub.save(net, "epifoundation", vocabularies=vocabularies)
    atac, half = sample["atac"], sample.n_obs // 2
    atac.write_h5ad("atlas.h5ad")
    peaks = atac.var.iloc[[10, 300]]
    bed = pd.DataFrame({"#chr": peaks["chrom"], "start": peaks["start"], "end": peaks["end"] + 5_000})
    bed = bed.assign(
        name=["CCL4", "GENE2"], score=0, strand="+", Ensembl_ID=["ENSG1", "ENSG2"], gene_type="protein_coding"
    )
    bed.to_csv("my.bed", sep="\t", index=False)
    yield {
        "__name__": "__main__",
        "ad": ad,
        "np": np,
        "pd": pd,
        "sc": sc,
        "sfa": sfa,
        "mdata": sample.copy(),
        "adata": atac.copy(),
        "reference": atac[:half].copy(),
        "query": atac[half:].copy(),
        "first": atac[:half].copy(),
        "second": atac[half:, ::-1].copy(),
        "other": atac[half:].copy(),
        "atac_of_other_cells": atac[half:].copy(),
        "my_embedding": lambda cells: cells.X.toarray()[:, :20],
    }
    plt.close("all")


def run(source: str, world: dict[str, Any]) -> str:
    """Run statements one by one, without those that are left out; what they print, and the value of the last expression."""
    printed = io.StringIO()
    for statement in ast.parse(source).body:
        if ast.unparse(statement) in LEFT_OUT:
            continue
        with contextlib.redirect_stdout(printed):
            if isinstance(statement, ast.Expr):
                value = eval(compile(ast.Expression(statement.value), "<example>", "eval"), world)
                if value is not None:
                    print(repr(value))  # noqa: T201
            else:
                exec(compile(ast.Module([statement], []), "<example>", "exec"), world)
    return printed.getvalue()


@pytest.mark.parametrize("where", marked(CODE), indirect=True)
def test_code_on_pages_runs(where: str, world: dict[str, Any]) -> None:
    run(CODE[where], world)


@pytest.mark.parametrize("where", marked(EXAMPLES), indirect=True)
def test_examples_of_docstrings_run(where: str, world: dict[str, Any]) -> None:
    """What an example prints is compared if the docstring shows it."""
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for example in EXAMPLES[where]:
        assert doctest.SKIP not in example.options, f"{example.source!r}: list it in LEFT_OUT, with a reason"
        printed = run(example.source, world)
        assert not example.want or doctest.OutputChecker().check_output(example.want, printed, options), printed


@pytest.mark.parametrize("statement", LEFT_OUT)
def test_left_out(statement: str) -> None:
    """Shows what is not run. A statement that is on no page any more has to leave the list."""
    sources = [*CODE.values(), *("".join(e.source for e in examples) for examples in EXAMPLES.values())]
    assert any(statement == ast.unparse(node) for source in sources for node in ast.parse(source).body)
    pytest.skip(f"{statement}: {LEFT_OUT[statement]}")


def test_special_ones_are_there() -> None:
    assert {*SLOW, *FEW_CELLS} <= {*CODE, *EXAMPLES}


def test_message_on_the_page_is_the_message(world: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```text\nValueError: (.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    adata = world["adata"]
    adata.X = adata.layers.pop("prepared")
    with pytest.raises(ValueError, match="already normalised") as error:
        sfa.tl.embed(adata)
    assert " ".join(shown.split()) == str(error.value)
