"""The table of kinds: options that a kind does not have are refused, values that say what happens anyway are not, and a kind is added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from anndata import AnnData
from anndata.tests.helpers import assert_equal
from mudata import MuData

import scfound_atac as sfa
from scfound_atac.hub import Checkpoint
from scfound_atac.inference import kinds
from scfound_atac.inference.kind import Embedded, Kind, Openness, Request
from scfound_atac.inference.kinds import kind_of
from scfound_atac.model import CellAnnotator, RNAPredictor

NETWORKS = ("region-set", "chromfound", "epifoundation")
LINEAR = ("biosample-prior", "biosample-mix")
MODELS = (*NETWORKS, *LINEAR)
ON_DEVICES = ("chromfound", "epifoundation")
ON_CPU = tuple(model for model in MODELS if model not in ON_DEVICES)
POOLINGS = {
    "region-set": ("mixture", "reconstruction"),
    "chromfound": ("hidden_mean", "reconstruction"),
    "epifoundation": ("cls",),
    "biosample-prior": ("profile",),
    "biosample-mix": ("profile",),
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCFOUND_ATAC_PROGRESS_BAR", "0")


@pytest.fixture(scope="module")
def model_of(tiny_backbones: dict[str, Checkpoint]) -> Callable[[str], Checkpoint]:
    return lambda name: tiny_backbones.get(name) or sfa.hub.load(name)


@pytest.fixture(scope="module")
def adata(make_labelled: Callable[..., AnnData]) -> AnnData:
    """To be read only."""
    return make_labelled(30)


def refused(adata: AnnData, model: Checkpoint, says: tuple[str, ...], **options: Any) -> None:
    """`tl.embed` refuses, names all of `says`, and leaves the cells alone."""
    given, before = adata.copy(), adata.copy()
    with pytest.raises(ValueError) as raised:  # noqa: PT011 -- the text is looked at below
        sfa.tl.embed(given, model=model, **options)
    for text in says:
        assert text in str(raised.value), str(raised.value)
    assert_equal(given, before)


def test_every_kind_is_tested(model_of) -> None:
    assert {model_of(name).model_class for name in MODELS} == set(kinds.KINDS)
    assert {name: kind_of(model_of(name)).poolings for name in MODELS} == POOLINGS


# ---------------------------------------------------------------- options that a kind does not have


@pytest.mark.parametrize("model", [name for name in MODELS if name != "chromfound"])
@pytest.mark.parametrize("recipe", ["chromfound", None, {"log1p": False}])
def test_recipe(adata, model_of, model, recipe) -> None:
    name = model_of(model).name
    refused(
        adata, model_of(model), (f"Model {name!r} has no option recipe={recipe!r}", "Leave out recipe="), recipe=recipe
    )


@pytest.mark.parametrize("recipe", ["lsi", {"scale": 1}])
def test_unknown_recipe(adata, model_of, recipe) -> None:
    refused(adata, model_of("chromfound"), (f"recipe={recipe!r}", "use 'auto', 'chromfound'"), recipe=recipe)


@pytest.mark.parametrize("model", ON_CPU)
@pytest.mark.parametrize(("option", "value"), [("precision", "bf16"), ("batch_size", 8), ("device", "meta")], ids=str)
def test_options_of_networks_on_a_gpu(adata, model_of, model, option, value) -> None:
    says = (f"Model {model_of(model).name!r} has no option {option}={value!r}", f"Leave out {option}=")
    refused(adata, model_of(model), says, **{option: value})


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("device", "abacus", "Unknown device 'abacus'"),
        ("precision", "fp8", "Unknown precision 'fp8'"),
        ("batch_size", 0, "batch_size must be a positive integer or 'auto', got 0"),
        ("batch_size", True, "batch_size must be a positive integer or 'auto', got True"),
        ("n_components", 0, "n_components must be at least 1, or None for the whole vector; got 0"),
        ("n_components", 2.0, "n_components must be at least 1, or None for the whole vector; got 2.0"),
        ("pooling", "max", "Unknown pooling 'max' for model"),
    ],
)
def test_values_that_no_kind_has(adata, model_of, model, option, value, says) -> None:
    refused(adata, model_of(model), (says,), **{option: value})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("model", MODELS)
def test_a_gpu_that_is_not_there(adata, model_of, model) -> None:
    refused(adata, model_of(model), ("device='cuda:0'", "torch sees no CUDA GPU"), device="cuda:0")


@pytest.mark.parametrize("model", MODELS)
def test_poolings_of_other_kinds(adata, model_of, model) -> None:
    others = sorted({pooling for names in POOLINGS.values() for pooling in names} - set(POOLINGS[model]))
    assert others
    for pooling in others:
        says = (f"Unknown pooling {pooling!r} for model {model_of(model).name!r}", str(POOLINGS[model]))
        refused(adata, model_of(model), says, pooling=pooling)


def test_a_mixture_has_no_whole_vector(adata, model_of) -> None:
    refused(adata, model_of("region-set"), ("mixture", "n_components"), pooling="mixture", n_components=None)


def test_basis_where_all_lie_in_one_space(adata, model_of) -> None:
    refused(adata, model_of("epifoundation"), ("Model 'tiny' needs no basis", "basis="), basis=adata)


def test_imputation_without_an_output_per_ocr(adata, model_of) -> None:
    given = adata.copy()
    with pytest.raises(ValueError, match="Model 'tiny' .* has no output per OCR. Impute with .*region-set"):
        sfa.tl.impute(given, model=model_of("epifoundation"), device="cpu")
    assert_equal(given, adata)


@pytest.mark.parametrize("model", ON_CPU)
@pytest.mark.parametrize(("option", "value"), [("precision", "bf16"), ("batch_size", 8), ("device", "meta")])
def test_imputation_has_the_same_options(adata, model_of, model, option, value) -> None:
    given = adata.copy()
    with pytest.raises(ValueError, match=f"Model '{model_of(model).name}' has no option {option}={value!r}"):
        sfa.tl.impute(given, model=model_of(model), **{option: value})
    assert_equal(given, adata)


# ---------------------------------------------------------------- heads


@pytest.mark.parametrize("head", [CellAnnotator, RNAPredictor])
@pytest.mark.parametrize("model", LINEAR)
def test_linear_models_carry_no_head(model_of, model, head) -> None:
    with pytest.raises(ValueError, match=f"Model '{model}' has no network and cannot be a backbone: use 'region-set'"):
        head(model_of(model))


@pytest.mark.parametrize(
    ("model", "mode", "option", "says"),
    [
        ("region-set", "paper", {}, "'tiny' has no head from a paper: use mode='probe' or 'finetune'"),
        ("region-set", "finetune", {"crop_size": 50}, "crop_size=50 only applies to ChromFound"),
        ("epifoundation", "finetune", {"crop_size": 50}, "crop_size=50 only applies to ChromFound"),
        ("epifoundation", "paper", {"crop_size": 50}, "crop_size=50 only applies to ChromFound"),
        ("chromfound", "paper", {"crop_size": 50}, "crop_size=50 only applies to ChromFound with mode='finetune'"),
    ],
)
def test_fine_tuning(adata, model_of, model, mode, option, says) -> None:
    annotator = CellAnnotator(model_of(model))
    with pytest.raises(ValueError, match=says):
        annotator.train(adata, "cell_type", mode=mode, device="cpu", **option)
    assert annotator.labels == []


@pytest.mark.parametrize(("option", "value"), [("batch_size", 8), ("device", "meta")])
def test_options_of_heads_are_those_of_their_backbone(adata, model_of, option, value) -> None:
    """A region-set is read on the CPU, without batches."""
    checkpoint, says = model_of("region-set"), f"Model 'tiny' has no option {option}={value!r}"
    with pytest.raises(ValueError, match=says):
        CellAnnotator(checkpoint).train(adata, "cell_type", **{option: value})
    counts = np.random.default_rng(0).poisson(2.0, (adata.n_obs, 3)).astype(np.float32)
    mdata = MuData({"atac": adata.copy(), "rna": AnnData(counts, obs=adata.obs[[]].copy())})
    with pytest.raises(ValueError, match=says):
        RNAPredictor(checkpoint).train(mdata, **{option: value})


# ---------------------------------------------------------------- values that say what happens anyway


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "options",
    [
        {"device": "cpu"},
        {"precision": "fp32", "device": "cpu"},
        {"device": "cpu", "precision": "auto", "batch_size": "auto", "recipe": "auto", "pooling": "auto"},
    ],
    ids=str,
)
def test_what_happens_anyway(adata, model_of, model, options) -> None:
    plain, named = adata.copy(), adata.copy()
    sfa.tl.embed(plain, model=model_of(model), n_components=3, device="cpu")
    sfa.tl.embed(
        named,
        model=model_of(model),
        n_components=3,
        pooling=options.get("pooling", POOLINGS[model][0]),
        **{name: value for name, value in options.items() if name != "pooling"},
    )
    np.testing.assert_array_equal(named.obsm["X_sfa"], plain.obsm["X_sfa"])
    assert named.uns["sfa"]["params"] == plain.uns["sfa"]["params"]
    assert named.uns["sfa"]["params"]["precision"] == "fp32"


@pytest.mark.parametrize("model", ON_DEVICES)
def test_batches_where_there_are_some(adata, model_of, model) -> None:
    """The option that others refuse is one here, and changes nothing but rounding."""
    plain, batched = adata.copy(), adata.copy()
    sfa.tl.embed(plain, model=model_of(model), n_components=3, device="cpu")
    sfa.tl.embed(batched, model=model_of(model), n_components=3, device="cpu", batch_size=4)
    np.testing.assert_allclose(
        batched.obsm["X_sfa"], plain.obsm["X_sfa"], atol=1e-4 * np.abs(plain.obsm["X_sfa"]).max()
    )


# ---------------------------------------------------------------- a fifth kind


class Depth(Kind):
    """A toy: how many of a cell's OCRs are open on each chromosome that the checkpoint knows."""

    poolings: ClassVar = ("n_open",)
    n_components: ClassVar = None
    has_basis: ClassVar = False
    is_backbone: ClassVar = True

    def _counts(self, cells: Any) -> np.ndarray:
        chromosome = self.checkpoint.chromosome_ids(cells.ocrs["chrom"].to_numpy())
        table = np.eye(len(self.checkpoint.chromosomes), dtype=np.float32)[chromosome]
        vectors = np.empty((len(cells), table.shape[1]), dtype=np.float32)
        for rows, chunk in cells.iter_rows():
            vectors[rows] = (chunk > 0).astype(np.float32) @ table
        return vectors

    def embed(self, cells: Any, request: Request, basis: Any = None) -> Embedded:
        order = self.genome_order(cells)
        return Embedded(self._counts(cells), order, params={"toy": True}, columns={"depth": self._counts(cells).sum(1)})

    def openness(self, cells: Any, request: Request) -> Openness:
        return Openness(lambda counts, _: np.ones(counts.shape, dtype=np.float32), self.genome_order(cells), {})

    def cell_vectors(self, cells: Any, **_: Any) -> np.ndarray:
        return self._counts(cells)


@pytest.fixture
def fifth(monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """A checkpoint of a kind that is known by its line in the table alone."""
    monkeypatch.setitem(kinds.KINDS, "Depth", (__name__, "Depth"))
    return Checkpoint(None, "toy", "0" * 64, model_class="Depth")


def test_a_fifth_kind_embeds(adata, fifth) -> None:
    given = adata.copy()
    sfa.tl.embed(given, model=fifth)
    expected = np.zeros((adata.n_obs, len(fifth.chromosomes)), dtype=np.float32)
    for i, name in enumerate(fifth.chromosomes):
        expected[:, i] = (adata.X[:, (adata.var["chrom"] == name).to_numpy()] > 0).sum(axis=1).A1
    np.testing.assert_array_equal(given.obsm["X_sfa"], expected)
    np.testing.assert_array_equal(given.obs["sfa_depth"], expected.sum(axis=1))
    params = given.uns["sfa"]["params"]
    assert (params["model"], params["pooling"], params["toy"], params["n_components"]) == ("toy", "n_open", True, 0)


def test_a_fifth_kind_has_the_checks_of_all(adata, fifth) -> None:
    refused(adata, fifth, ("Model 'toy' has no option recipe='chromfound'",), recipe="chromfound")
    refused(adata, fifth, ("Model 'toy' has no option batch_size=8",), batch_size=8)
    refused(adata, fifth, ("Unknown pooling 'cls' for model 'toy'", "('n_open',)"), pooling="cls")
    refused(adata, fifth, ("Model 'toy' needs no basis",), basis=adata)


def test_a_fifth_kind_imputes_and_carries_a_head(adata, fifth) -> None:
    given = adata.copy()
    sfa.tl.impute(given, model=fifth, n_kept=None)
    n_open = (adata.X > 0).sum(axis=1).A1
    imputed = given.layers["sfa_imputed"].toarray()
    np.testing.assert_allclose(imputed, np.repeat(n_open[:, None] / adata.n_vars, adata.n_vars, axis=1), rtol=1e-5)
    annotator = CellAnnotator(fifth).train(adata, "cell_type")
    found = annotator.predict(adata).probabilities.idxmax(axis=1)
    assert (found == adata.obs["cell_type"].astype(str)).mean() > 0.9


def test_a_kind_says_what_it_lacks(adata, fifth) -> None:
    """What a kind does not have is a refusal where it says so, and an error in its file where it does not."""
    with pytest.raises(ValueError, match="'toy' has no head from a paper"):
        CellAnnotator(fifth).train(adata, "cell_type", mode="paper")
    with pytest.raises(TypeError, match="Depth"):
        CellAnnotator(fifth).train(adata, "cell_type", mode="finetune")
