"""`ChromFound` from registration to a saved folder, on cells of two made-up kinds."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from lightning.pytorch import Callback
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.data.fit_rows import fit_rows
from scfound_atac.model import ChromFound
from scfound_atac.nn.masking import mask_values

TINY = {
    "d_model": 16,
    "n_layers": 2,
    "n_heads": 2,
    "window_size": 16,
    "shift_size": 8,
    "d_mlp": 16,
    "d_low": 8,
    "d_state": 16,
}
N_CELLS, N_OCRS = 60, 120
TRAIN = {"batch_size": 18, "accelerator": "cpu", "devices": 1, "lr": 3e-3}


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCFOUND_ATAC_PROGRESS_BAR", "0")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def make_adata(seed: int = 0) -> AnnData:
    """Columns are not in genome order; OCRs of one stretch of the genome open together."""
    rng = np.random.default_rng(seed)
    place = np.arange(N_OCRS)
    kind = rng.integers(2, size=N_CELLS)
    rate = np.where((place[None, :] // 30) % 2 == kind[:, None], 0.8, 0.05)
    counts = rng.poisson(rate).astype(np.float32)
    counts[counts.sum(1) == 0, 0] = 1
    start = 1_000_000 + 10_000 * (place % 60)
    var = pd.DataFrame({"chrom": np.where(place < 60, "chr1", "chr7"), "start": start, "end": start + 500})
    var.index = [f"{c}:{s}-{e}" for c, s, e in var.itertuples(index=False)]
    obs = pd.DataFrame({"kind": kind.astype(str)}, index=[f"cell{i}" for i in range(N_CELLS)])
    adata = AnnData(sparse.csr_matrix(counts), obs=obs, var=var, uns={"genome": "GRCh38"})
    return adata[:, np.random.default_rng(1).permutation(N_OCRS)].copy()


def setup(adata: AnnData, **options) -> AnnData:
    ChromFound.setup_anndata(adata, **options)
    return adata


@pytest.fixture
def adata() -> AnnData:
    return setup(make_adata())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ChromFound:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("run"))
        patch.setenv("SCFOUND_ATAC_PROGRESS_BAR", "0")
        model = ChromFound(setup(make_adata()), config=TINY)
        model.train(4, **TRAIN)
    return model


def train(adata: AnnData, *, init_seed: int = 0, **options) -> ChromFound:
    model = ChromFound(adata, config=TINY, seed=init_seed)
    model.train(1, **{**TRAIN, **options})
    return model


def weights(model: ChromFound) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in model.module.net.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


# Training


def test_training_learns(trained: ChromFound) -> None:
    loss = trained.history["validation_loss"]["validation_loss"].astype(float)
    assert len(loss) == 4
    assert loss.iloc[-1] < loss.iloc[0]
    assert len(trained.history["train_loss_epoch" if "train_loss_epoch" in trained.history else "train_loss"]) == 4
    assert trained.is_trained
    assert not trained.module.training


def test_record_of_the_training(trained: ChromFound) -> None:
    record = trained.checkpoint.training
    assert record["n_cells"] == 54
    assert record["n_ocrs"] == N_OCRS
    assert record["n_steps"] == 4 * 3
    assert record["seed"] == 0


def test_same_seed_same_weights(adata: AnnData) -> None:
    state = torch.get_rng_state()
    first = weights(train(adata, crop_size=50))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12345)
    assert same(first, weights(train(adata, crop_size=50)))
    assert not same(first, weights(train(adata, crop_size=50, seed=1)))


def test_seed_of_the_initial_weights(adata: AnnData) -> None:
    first, again, other = (weights(ChromFound(adata, config=TINY, seed=seed)) for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


def test_without_validation_cells(adata: AnnData) -> None:
    model = train(adata, train_size=1.0)
    assert model.is_trained
    assert model.checkpoint.training["n_cells"] == N_CELLS


def test_training_leaves_the_data_alone(adata: AnnData) -> None:
    before = adata.copy()
    train(adata)
    assert (adata.X != before.X).nnz == 0
    assert adata.var.equals(before.var)
    assert list(adata.obs["kind"]) == list(before.obs["kind"])


@pytest.mark.parametrize("train_size", [0, -0.1, 1.1])
def test_train_size_out_of_range(adata: AnnData, train_size: float) -> None:
    with pytest.raises(ValueError, match="train_size must lie in"):
        ChromFound(adata, config=TINY).train(1, train_size=train_size)


def test_config_or_checkpoint(adata: AnnData, trained: ChromFound) -> None:
    with pytest.raises(ValueError, match="not both"):
        ChromFound(adata, config=TINY, checkpoint=trained.checkpoint)


# Output


@pytest.mark.parametrize(("n_components", "width"), [(5, 5), (None, N_OCRS), (500, N_CELLS - 1)])
def test_latent_shape(trained: ChromFound, n_components: int | None, width: int) -> None:
    latent = trained.get_latent_representation(n_components=n_components)
    assert latent.shape[0] == N_CELLS
    assert latent.shape[1] <= width
    assert latent.shape[1] == width or n_components == 500
    assert latent.dtype == np.float32
    assert np.isfinite(latent).all()


def test_latent_of_other_cells(trained: ChromFound) -> None:
    other = setup(make_adata(seed=5))
    latent = trained.get_latent_representation(other, n_components=None)
    expected = other.copy()
    sfa.tl.embed(expected, model=trained.checkpoint, n_components=None, device="cpu")
    np.testing.assert_allclose(latent, expected.obsm["X_sfa"], atol=1e-5)


@pytest.mark.parametrize("n_components", [None, 4])
def test_embed_takes_the_saved_folder(trained: ChromFound, tmp_path: Path, n_components: int | None) -> None:
    trained.save(tmp_path / "model")
    adata = make_adata()
    sfa.tl.embed(adata, model=tmp_path / "model", n_components=n_components, device="cpu")
    latent = trained.get_latent_representation(n_components=n_components)
    np.testing.assert_allclose(latent, adata.obsm["X_sfa"], atol=1e-5 * np.abs(latent).max())


def test_pca_of_many_cells_is_fitted_to_some(trained: ChromFound) -> None:
    """The axes are those of `tl.embed`: of at most `n_fit_cells` cells, which the seed and their names choose."""
    adata = setup(make_adata())
    fitted = {}
    for n_fit_cells, seed in ((20, 0), (20, 1), (N_CELLS, 0)):
        options = {"n_components": 4, "n_fit_cells": n_fit_cells, "seed": seed}
        fitted[n_fit_cells, seed] = latent = trained.get_latent_representation(adata, **options)
        sfa.tl.embed(adata, model=trained.checkpoint, device="cpu", **options)
        np.testing.assert_allclose(latent, adata.obsm["X_sfa"], atol=1e-5 * np.abs(latent).max())
    np.testing.assert_array_equal(fitted[N_CELLS, 0], trained.get_latent_representation(adata, n_components=4))
    assert not np.allclose(fitted[20, 0], fitted[20, 1], atol=1e-3)
    mean = fitted[20, 0][fit_rows(adata.obs_names, 20, 0)].mean(0)
    np.testing.assert_allclose(mean, 0, atol=1e-4)
    assert np.abs(fitted[20, 0].mean(0)).max() > 1e-3


def test_reconstruction(trained: ChromFound) -> None:
    adata = make_adata()
    found = trained.get_reconstruction()
    sfa.tl.embed(adata, model=trained.checkpoint, n_components=None, pooling="reconstruction", device="cpu")
    np.testing.assert_allclose(found, adata.obsm["X_sfa"], atol=1e-5)


# Files


def test_save_and_load(trained: ChromFound, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    loaded = ChromFound.load(tmp_path / "model", setup(make_adata()))
    assert loaded.is_trained
    assert same(weights(loaded), weights(trained))
    expected = trained.get_latent_representation(n_components=None)
    np.testing.assert_allclose(loaded.get_latent_representation(n_components=None), expected, atol=1e-6)


def test_saving_over_a_model_needs_consent(trained: ChromFound, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        trained.save(tmp_path / "model")
    trained.save(tmp_path / "model", overwrite=True, save_anndata=True)
    assert (tmp_path / "model" / "adata.h5ad").is_file()


def test_load_on_permuted_ocrs(trained: ChromFound, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    columns = np.random.default_rng(3).permutation(N_OCRS)
    loaded = ChromFound.load(tmp_path / "model", setup(make_adata()[:, columns].copy()))
    expected = trained.get_latent_representation(n_components=None)[:, columns]
    np.testing.assert_allclose(loaded.get_latent_representation(n_components=None), expected, atol=1e-5)


def test_load_on_other_ocrs(trained: ChromFound, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    for other in (make_adata()[:, :-1].copy(), moved(make_adata())):
        setup(other)
        with pytest.raises(ValueError, match="other OCRs than the saved model"):
            ChromFound.load(tmp_path / "model", other)


def moved(adata: AnnData) -> AnnData:
    adata.var["start"] += 7
    adata.var_names = sfa.genome.ocr_names(adata.var)
    return adata


def test_from_pretrained_takes_any_ocrs(trained: ChromFound, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    model = ChromFound.from_pretrained(tmp_path / "model", setup(make_adata()[:, :77].copy()))
    assert same(weights(model), weights(trained))
    assert model.get_latent_representation(n_components=None).shape == (N_CELLS, 77)
    before = weights(model)
    model.train(1, **TRAIN)
    assert not same(weights(model), before)


def test_load_from_nowhere(adata: AnnData, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No such folder"):
        ChromFound.load(tmp_path / "nothing", adata)


# Registration


def test_normalised_data_are_refused() -> None:
    adata = make_adata()
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.log1p()
    with pytest.raises(ValueError, match="normalised already"):
        setup(adata)
    setup(adata, layer="counts")
    setup(adata, recipe=None)


def test_layer_and_recipe_are_used(trained: ChromFound, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    adata = make_adata()
    adata.layers["prepared"] = sfa.data.prepare_rows(adata.X)
    adata.X = adata.X * 0
    model = ChromFound.load(tmp_path / "model", setup(adata, layer="prepared", recipe=None))
    expected = trained.get_latent_representation(n_components=None)
    np.testing.assert_allclose(model.get_latent_representation(n_components=None), expected, atol=1e-5)


def test_unknown_recipe() -> None:
    with pytest.raises(ValueError, match="recipe='tfidf' is not known"):
        setup(make_adata(), recipe="tfidf")


def test_unknown_layer() -> None:
    with pytest.raises(KeyError, match="no layer 'raw'"):
        setup(make_adata(), layer="raw")


def test_another_genome() -> None:
    with pytest.raises(ValueError, match="hg19"):
        setup(make_adata(), genome="hg19")


def test_values_that_are_no_counts(adata: AnnData) -> None:
    model = ChromFound(adata, config=TINY)
    adata.X.data[3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.train(1, **TRAIN)


def test_loss_on_all_positions_is_another_objective(adata: AnnData) -> None:
    """The same start, data and masks, but other weights after one epoch."""
    assert not same(weights(train(adata, loss_on="replaced")), weights(train(adata, loss_on="all")))
    with pytest.raises(ValueError, match="loss_on"):
        train(adata, loss_on="open")


def losses_of_the_paper(model: ChromFound, values: sparse.csr_matrix, seed: int) -> dict[str, float]:
    """Section 3.3 written out: squared error of each cell at the replaced positions, or at all, then the mean over cells."""
    value = torch.from_numpy(values[:, model._order].toarray())
    shown, replaced = mask_values(value, mask_fraction=0.3, generator=torch.Generator().manual_seed(seed))
    net, bound = model.module.net.eval(), model.module
    error = (net.reconstruct(net(shown, net.embed_ocrs(bound.chromosome, bound.start, bound.end))) - value) ** 2
    return {
        "masked": float(torch.stack([e[r].mean() for e, r in zip(error, replaced, strict=True)]).mean()),
        "all": float(error.mean()),
    }


@pytest.mark.parametrize("recipe", ["chromfound", None])
@pytest.mark.parametrize("objective", ["masked", "all"])
def test_loss_is_that_of_the_paper(recipe: str | None, objective: str) -> None:
    """Also where a cell has reads in OCRs that the network does not know: they count in its total."""
    adata = make_adata()
    adata.var["chrom"] = np.where(np.arange(N_OCRS) < 3, "chrUn_KI270742v1", adata.var["chrom"])
    adata.var_names = [f"{c}:{s}-{e}" for c, s, e in adata.var[["chrom", "start", "end"]].itertuples(index=False)]
    model = ChromFound(setup(adata, recipe=recipe), config=TINY)
    values = sfa.data.prepare_rows(adata.X) if recipe else adata.X
    seen = []

    class Spy(Callback):
        def on_validation_batch_end(self, trainer, plan, outputs, batch, batch_idx) -> None:
            seen.append((plan._loss(batch, seed=5)[0], values[trainer.datamodule.val_idx]))

    loss_on = "replaced" if objective == "masked" else "all"
    options = {**TRAIN, "lr": 0.0, "weight_decay": 0.0, "batch_size": N_CELLS, "train_size": 0.5, "mask_fraction": 0.3}
    model.train(1, loss_on=loss_on, callbacks=[Spy()], **options)
    ((loss, held_out),) = seen
    expected = losses_of_the_paper(model, held_out, seed=5)
    assert float(loss) == pytest.approx(expected[objective], rel=1e-5)
    assert model.checkpoint.training["objectives"] == {objective: 1.0}
    assert model.checkpoint.training["mask_fraction"] == 0.3


def test_masked_is_the_objective_unless_others_are_named(adata: AnnData) -> None:
    by_default = weights(train(adata))
    assert same(by_default, weights(train(adata, objectives={"masked": 1.0})))
    assert not same(by_default, weights(train(adata, objectives={"masked": 1.0}, mask_fraction=0.5)))
    assert same(weights(train(adata, loss_on="all")), weights(train(adata, objectives={"all": 1.0})))


def test_duplicated_ocrs_are_refused() -> None:
    adata = make_adata()
    adata.var.iloc[1] = adata.var.iloc[0]
    adata.var_names = [f"peak{i}" for i in range(adata.n_vars)]
    with pytest.raises(ValueError, match="repeat the coordinates"):
        ChromFound.setup_anndata(adata)


def test_network_that_knows_regions(tmp_path: Path) -> None:
    """Training, saving and embedding look the regions up, in genome order whatever the order of the columns."""
    adata = setup(make_adata())
    n_factors = sfa.genome.load_region_table().n_factors + 2
    model = ChromFound(adata, config={**TINY, "n_factors": n_factors})
    features = sfa.genome.load_region_table().lookup(sfa.genome.get_ocrs(adata.var)).features
    np.testing.assert_array_equal(model.module.factors.numpy(), features[model._order])
    assert not any("factors" in name for name in model.module.state_dict())
    before = weights(model)["region_projection.weight"]
    model.train(1, **{**TRAIN, "crop_size": 50})
    assert not torch.equal(weights(model)["region_projection.weight"], before)
    model.save(tmp_path / "model")
    sfa.tl.embed(adata, model=tmp_path / "model", n_components=None, device="cpu")
    latent = model.get_latent_representation(n_components=None)
    np.testing.assert_allclose(latent, adata.obsm["X_sfa"], atol=1e-5)
    with pytest.raises(ValueError, match="expects n_factors=7"):
        ChromFound(adata, config={**TINY, "n_factors": 7})


@pytest.mark.slow
def test_training_with_other_objectives(adata: AnnData) -> None:
    """The validation loss falls: which OCRs the hidden reads of a cell fall into can be told from its kind."""
    model = ChromFound(adata, config=TINY)
    model.train(max_epochs=15, objectives={"denoise": 1.0, "contrast": 0.1}, crop_size=64, **TRAIN)
    loss = model.history_["validation_loss"].to_numpy(dtype=float).ravel()
    assert loss[-1] < 0.9 * loss[0]
    assert model.checkpoint.training["objectives"] == {"denoise": 1.0, "contrast": 0.1}
    assert np.isfinite(model.get_latent_representation(n_components=4)).all()


@pytest.mark.parametrize(
    ("objectives", "message"),
    [({"guess": 1.0}, "Unknown objectives: 'guess'"), ({"identity": 1.0}, "needs simulated cells")],
)
def test_objectives_that_cannot_be(adata: AnnData, objectives: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChromFound(adata, config=TINY).train(objectives=objectives, **TRAIN)


def test_objectives_need_counts() -> None:
    adata = setup(make_adata(), recipe=None)
    with pytest.raises(ValueError, match="objectives thin counts"):
        ChromFound(adata, config=TINY).train(objectives={"denoise": 1.0}, **TRAIN)
    assert same(weights(train(adata)), weights(train(adata, objectives={"masked": 1.0})))


def test_another_kind_of_model_is_refused(adata: AnnData) -> None:
    with pytest.raises(ValueError, match="'biosample-prior' is a BiosamplePrior model, not ChromFound"):
        ChromFound.from_pretrained("biosample-prior", adata)
