"""`RegionSet`: the default model, adapted to cells; what it has in common with PEAKVI is in test_scvi_contract."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from scipy import sparse

import scfound_atac as sfa
from scfound_atac.model import RegionSet

N_OCRS = 400
FAST = {"batch_size": 64, "accelerator": "cpu", "devices": 1}
N_SHIFTED = 40  # OCRs that are more often open in one batch


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(scvi.settings, "logging_dir", tmp_path / "scvi_log")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    before = scvi.settings.seed
    yield
    scvi.settings.seed = before


def make_cells(n: int = 160, *, seed: int = 0, batches: str = "AB", shift: float = 1.0) -> AnnData:
    """Four kinds of cells, each with OCRs of its own; the first OCRs are `shift` times as often open in the second batch."""
    rng = np.random.default_rng(seed)
    kind, place = np.arange(n) % 4, np.arange(N_OCRS)
    batch = rng.choice(len(batches), n)
    rate = np.where((place[None, :] // 10) % 4 == kind[:, None], 0.3, 0.05) * rng.uniform(0.5, 1.5, n)[:, None]
    rate[:, :N_SHIFTED] *= np.where(batch == 1, shift, 1.0)[:, None]
    var = pd.DataFrame({"chrom": "chr2", "start": 10_000 * (place + 1), "end": 10_000 * (place + 1) + 500})
    var.index = [f"{c}:{s}-{e}" for c, s, e in var.itertuples(index=False)]
    obs = pd.DataFrame(
        {
            "kind": kind.astype(str),
            "batch": np.array(list(batches))[batch],
            "quality": rng.normal(size=n),
            "sex": rng.choice(["f", "m"], n),
        },
        index=[f"cell{seed}_{i}" for i in range(n)],
    )
    return AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs, var=var, uns={"genome": "GRCh38"})


def make(adata: AnnData | None = None, **setup: Any) -> RegionSet:
    adata = make_cells() if adata is None else adata
    RegionSet.setup_anndata(adata, **({"batch_key": "batch"} | setup))
    return RegionSet(adata, n_latent=6, n_hidden=16)


def trained(adata: AnnData | None = None, n_epochs: int = 2, **setup: Any) -> RegionSet:
    model = make(adata, **setup)
    model.train(n_epochs, **FAST)
    return model


def state(model: RegionSet) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in model.module.net.state_dict().items()}


def distances(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x[:, None] - x[None], axis=2)[np.triu_indices(len(x), 1)]


def test_training_starts_from_the_default_embedding() -> None:
    adata = make_cells()
    adata.X = (adata.X > 0).astype(np.float32)  # what the network reads
    model = trained(adata, 1, batch_key=None)
    fresh = make(adata, batch_key=None)
    fresh._start()
    fresh.is_trained = True
    sfa.tl.embed(adata, n_components=6)
    start = fresh.get_latent_representation()
    assert np.corrcoef(distances(start), distances(adata.obsm["X_sfa"]))[0, 1] > 0.9999
    assert np.isclose(np.sqrt(np.square(start).sum(1).mean()), 0.5, atol=0.02)
    assert not np.allclose(model.get_latent_representation(), start, atol=1e-3)


@pytest.mark.slow
def test_training_explains_cells_that_it_has_not_seen() -> None:
    model = make(make_cells(400))
    model.train(15, **FAST)
    found = model.history["reconstruction_loss_validation"].iloc[:, 0]
    assert found.iloc[-1] < found.iloc[0] - 1
    assert {"elbo_validation", "kl_local_train", "train_loss"} <= set(model.history)


@pytest.mark.slow
def test_an_effect_of_the_batch_is_learned_by_the_decoder() -> None:
    """It is found again at the OCRs that have it, and not in the latent vectors."""
    adata = make_cells(600, shift=4.0)
    model = trained(adata, 30)
    effect = model.module.net.batch_effect.detach().numpy()
    gain = effect[1] - effect[0]
    assert gain[:N_SHIFTED].mean() - gain[N_SHIFTED:].mean() > 0.5
    as_a, as_b = (
        model.get_normalized_accessibility(transform_batch=batch, return_numpy=True).mean(axis=0) for batch in "AB"
    )
    ratio = as_b / as_a
    assert ratio[:N_SHIFTED].mean() > 1.5
    assert ratio[N_SHIFTED:].mean() < 1.0
    own = model.get_normalized_accessibility(return_numpy=True)
    assert np.allclose(own[adata.obs["batch"] == "A"].mean(0), as_a, rtol=0.2)


def test_further_covariates() -> None:
    model = trained(
        make_cells(200), 3, categorical_covariate_keys=["sex", "kind"], continuous_covariate_keys=["quality"]
    )
    net = model.module.net
    assert [tuple(x.shape) for x in net.cat_effects] == [(2, N_OCRS), (4, N_OCRS)]
    assert net.continuous_effect.shape == (1, N_OCRS)
    assert all(x.abs().max() > 0 for x in (*net.cat_effects, net.continuous_effect))
    assert np.isfinite(model.get_normalized_accessibility(return_numpy=True)).all()


def test_depth_is_no_part_of_the_latent_vector() -> None:
    adata = make_cells(400)
    model = trained(adata, 10)
    thin = adata.copy()
    thin.X = sparse.csr_matrix(np.random.default_rng(0).binomial(adata.X.toarray().astype(int), 0.5).astype(np.float32))
    whole, half = model.get_latent_representation(), model.get_latent_representation(thin)
    length = np.log(np.asarray(adata.X.sum(axis=1)).ravel())
    assert max(abs(np.corrcoef(length, z)[0, 1]) for z in whole.T) < 0.35
    nearest = np.argmin(np.linalg.norm(half[:, None] - whole[None], axis=2), axis=1)
    assert (adata.obs["kind"].to_numpy()[nearest] == adata.obs["kind"].to_numpy()).mean() > 0.9


def test_rows_of_latent_vectors() -> None:
    model = trained()
    z = model.get_latent_representation()
    for indices in ([5, 3, 3, -1], np.arange(len(z)) % 3 == 0, np.array([7])):
        np.testing.assert_allclose(model.get_latent_representation(None, indices), z[indices], atol=1e-6)
    mean, variance = model.get_latent_representation(return_dist=True, batch_size=7)
    np.testing.assert_allclose(mean, z, atol=1e-6)
    assert (variance > 0).all()
    other = make_cells(30, seed=2, batches="AC")
    assert model.get_latent_representation(other).shape == (30, 6)
    with pytest.raises(ValueError, match="has not learned"):
        model.get_normalized_accessibility(other)
    with pytest.raises(TypeError, match="get_normalized_accessibility"):
        model.get_normalized_expression()


def test_probabilities() -> None:
    adata = make_cells()
    model = trained(adata, 3)
    table = model.get_normalized_accessibility()
    assert list(table.index) == list(adata.obs_names)
    assert list(table.columns) == list(adata.var_names)
    assert ((table > 0) & (table < 1)).all(axis=None)
    some = model.get_normalized_accessibility(indices=[3, -1], region_list=list(adata.var_names[[7, 2]]))
    assert list(some.columns) == list(adata.var_names[[2, 7]])
    np.testing.assert_allclose(some, table.iloc[[3, -1], [2, 7]], rtol=1e-5)
    sparse_table = model.get_normalized_accessibility(threshold=0.2, return_numpy=True)
    assert sparse.issparse(sparse_table)
    np.testing.assert_allclose(sparse_table.toarray(), np.where(table < 0.2, 0, table), rtol=1e-5)
    # with the depth of the cell itself, expected numbers of open OCRs are those of the cells
    own = model.get_normalized_accessibility(normalize_cells=True).sum(axis=1)
    n_open = np.asarray((adata.X > 0).sum(axis=1)).ravel()
    assert np.corrcoef(own, n_open)[0, 1] > 0.95
    assert abs(np.corrcoef(table.sum(axis=1), n_open)[0, 1]) < 0.5
    assert model.get_normalized_accessibility(n_samples_overall=7).shape == (7, N_OCRS)
    factors = model.get_region_factors()
    assert np.corrcoef(factors, table.mean())[0, 1] > 0.8
    assert np.allclose(model.get_library_size_factors() * np.median(n_open), n_open)
    with pytest.raises(ValueError, match="threshold must lie"):
        model.get_normalized_accessibility(threshold=2)
    with pytest.raises(TypeError, match="takes no normalize_regions="):
        model.get_normalized_accessibility(normalize_regions=True)


def test_differential_accessibility() -> None:
    model = trained(make_cells(400), 15)
    found = model.differential_accessibility(groupby="kind", group1="0", group2="1", silent=True)
    place = np.array([int(name.split(":")[1].split("-")[0]) for name in found.index]) // 10_000 - 1
    kind = (place // 10) % 4
    assert set(kind[:60]) == {0, 1}
    assert found["emp_prob1"].between(0, 1).all()


def test_the_seed_decides() -> None:
    def weights(**options: Any) -> dict[str, torch.Tensor]:
        model = make()
        model.train(1, **FAST, **options)
        return state(model)

    before = torch.get_rng_state()
    first, again, other = weights(seed=1), weights(seed=1), weights(seed=2)
    assert all(torch.equal(x, again[name]) for name, x in first.items())
    assert not torch.equal(first["rotation"], other["rotation"])
    assert torch.equal(before, torch.get_rng_state())


def test_sparse_batches_and_other_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the form of batches nor the size of blocks changes what is learned."""
    direct, sparse_batches, small_blocks = make(), make(), make()
    direct.train(2, **FAST)
    sparse_batches.train(2, **FAST, datasplitter_kwargs={"load_sparse_tensor": True})
    monkeypatch.setattr("scfound_atac.train.region_set._ENTRIES_PER_BLOCK", 1)
    small_blocks.train(2, **FAST)
    z = direct.get_latent_representation()
    for model in (sparse_batches, small_blocks):
        np.testing.assert_allclose(model.get_latent_representation(), z, atol=1e-3)
    with pytest.raises(TypeError, match="plan_kwargs has no option 'optimizer'"):
        direct.train(1, plan_kwargs={"optimizer": "SGD"})
    warmed = make()
    warmed.train(2, **FAST, n_epochs_kl_warmup=4)
    assert (
        warmed.history["train_loss"].iloc[0, 0] < direct.history["train_loss"].iloc[0, 0]
    )  # the prior does not count yet


class _Fall(Callback):
    def on_train_epoch_start(self, trainer: Any, plan: Any) -> None:
        if trainer.current_epoch == 2:
            raise KeyError


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    whole, part = make(), make()
    whole.train(4, **FAST)
    with pytest.raises(KeyError):
        part.train(4, **FAST, callbacks=[ModelCheckpoint(tmp_path, save_last=True), _Fall()])
    assert not part.is_trained
    part.train(4, **FAST, ckpt_path=tmp_path / "last.ckpt")
    expected = state(whole)
    assert all(torch.equal(x, expected[name]) for name, x in state(part).items())
    assert list(part.history["train_loss"].index) == [0, 1, 2, 3]


def test_saved_and_loaded(tmp_path: Path) -> None:
    adata = make_cells()
    model = trained(adata)
    z = model.get_latent_representation()
    model.save(tmp_path / "model", save_anndata=True)
    model.save(tmp_path / "bare", "x_")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"adata.h5ad", "config.json", "model.safetensors", "ocrs.tsv.gz", "registry.json"}
    loaded = RegionSet.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.get_latent_representation(), z, atol=1e-5)
    loaded.train(1, **FAST)
    bare = RegionSet.load(tmp_path / "bare", False, prefix="x_")
    assert bare.adata is None
    with pytest.raises(ValueError, match="opened without data"):
        bare.get_latent_representation()
    with pytest.raises(ValueError, match="opened without data"):
        bare.train(1)
    other = make_cells(30, seed=1)
    np.testing.assert_allclose(bare.get_latent_representation(other), model.get_latent_representation(other), atol=1e-5)
    assert RegionSet.load(tmp_path / "bare", other, prefix="x_").registry["setup_args"]["batch_key"] == "batch"
    strange = make_cells(30, seed=3, batches="XY")
    RegionSet.setup_anndata(strange, batch_key="batch")
    with pytest.raises(ValueError, match="set up with other values of batch"):
        RegionSet.load(tmp_path / "model", strange)
    with pytest.raises(FileExistsError, match="exists"):
        model.save(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        RegionSet.load(tmp_path / "bare")


def test_damaged_folders(tmp_path: Path) -> None:
    model = trained(n_epochs=1)
    for file, content, message in (
        ("model.safetensors", b"nothing", "does not hold the weights"),
        ("config.json", b"{", "is damaged"),
        ("config.json", b'{"model_class": "ChromFound"}', "not the configuration of a model of class RegionSet"),
        ("registry.json", b"\xff", "is damaged"),
    ):
        model.save(tmp_path / "model", overwrite=True)
        (tmp_path / "model" / file).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            RegionSet.load(tmp_path / "model", make_cells())
    model.save(tmp_path / "own")
    with pytest.raises(ValueError, match=r"sfa\.model\.RegionSet\.load"):
        sfa.hub.load(tmp_path / "own")


def test_other_ocrs_are_refused(tmp_path: Path) -> None:
    model = trained(n_epochs=1)
    model.save(tmp_path / "model")
    shuffled = make_cells()[:, ::-1].copy()
    fewer = make_cells()[:, :-1].copy()
    for wrong, mend in ((shuffled, "get_var_names"), (fewer, "pp.map_ocrs")):
        for call in (
            model.get_latent_representation,
            lambda adata: RegionSet.load(tmp_path / "model", adata),
            lambda adata: RegionSet.load_query_data(adata, model),
        ):
            with pytest.raises(ValueError, match=mend):
                call(wrong)
    renamed = make_cells()
    renamed.var_names = renamed.var_names.str.replace(":", "-")
    np.testing.assert_allclose(model.get_latent_representation(renamed), model.get_latent_representation(), atol=1e-6)
    sorted_again = RegionSet.prepare_query_anndata(shuffled, model, inplace=False)
    np.testing.assert_allclose(
        model.get_latent_representation(sorted_again), model.get_latent_representation(), atol=1e-6
    )


@pytest.mark.parametrize("from_folder", [True, False])
def test_query(tmp_path: Path, *, from_folder: bool) -> None:
    reference = trained(make_cells(300), 5)
    reference.save(tmp_path / "model")
    query = make_cells(200, seed=1, batches="BC", shift=4.0)
    model = RegionSet.load_query_data(query, tmp_path / "model" if from_folder else reference)
    assert list(model.get_state_registry("batch").categorical_mapping) == ["A", "B", "C"]
    z = model.get_latent_representation()
    assert z.shape == (200, 6)
    before = state(model)
    model.train(10, **FAST)
    after = state(model)
    changed = {name for name, x in before.items() if not torch.equal(x, after[name])}
    assert changed == {"batch_effect"}
    assert torch.equal(before["batch_effect"][:2], after["batch_effect"][:2])
    for found in (before, after):
        gain = found["batch_effect"][2].numpy()
        assert gain[:N_SHIFTED].mean() > gain[N_SHIFTED:].mean() + 0.2
    np.testing.assert_allclose(model.get_latent_representation(), z)
    assert torch.equal(state(reference)["batch_effect"], before["batch_effect"][:2])


def test_query_that_changes_everything() -> None:
    reference = trained(make_cells(300), 2)
    query = make_cells(100, seed=1, batches="C")
    model = RegionSet.load_query_data(query, reference, unfrozen=True, freeze_dropout=True)
    before = state(model)
    model.train(2, **FAST)
    after = state(model)
    assert not torch.equal(before["rotation"], after["rotation"])
    assert torch.equal(before["backbone.cell_linear.weight"], after["backbone.cell_linear.weight"])
    assert model.module.net.hidden[-1].p == 0
    with pytest.raises(TypeError, match="takes no freeze_expression="):
        RegionSet.load_query_data(query, reference, freeze_expression=True)
    with pytest.raises(ValueError, match="needs a trained model or its folder"):
        RegionSet.load_query_data(query)


def test_minified_cells(tmp_path: Path) -> None:
    adata = make_cells()
    model = trained(adata, 3)
    z, accessibility = model.get_latent_representation(), model.get_normalized_accessibility(normalize_cells=True)
    adata.obsm["X_latent_qzm"], adata.obsm["X_latent_qzv"] = model.get_latent_representation(return_dist=True)
    model.minify_adata()
    assert model.adata is not adata
    assert model.adata.X.nnz == 0
    assert adata.X.nnz > 0
    np.testing.assert_allclose(model.get_latent_representation(), z, atol=1e-6)
    np.testing.assert_allclose(model.get_normalized_accessibility(normalize_cells=True), accessibility, rtol=1e-4)
    with pytest.raises(ValueError, match="minified"):
        model.train(1)
    model.save(tmp_path / "model", save_anndata=True)
    loaded = RegionSet.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.get_latent_representation(), z, atol=1e-6)


def test_columns_that_are_no_ocrs_and_cells_without_any() -> None:
    adata = make_cells()
    genes = AnnData(
        sparse.csr_matrix(np.ones((adata.n_obs, 2), np.float32)),
        obs=adata.obs,
        var=pd.DataFrame(index=["chrUn_1:5-9", "chrM:1-500"]),
    )
    both = ad.concat([adata, genes], axis=1, merge="same")
    both.uns["genome"] = "GRCh38"
    both.var["chrom"] = [*adata.var["chrom"], "chrUn_1", "chrM"]
    both.var["start"] = [*adata.var["start"], 5, 1]
    both.var["end"] = [*adata.var["end"], 9, 500]
    both.X = sparse.csr_matrix(both.X.multiply((np.arange(both.n_obs) != 3)[:, None]))
    model = trained(both, 2)
    assert np.isfinite(model.get_latent_representation()).all()
    assert np.isfinite(model.get_normalized_accessibility(return_numpy=True)).all()


def test_what_cannot_be_set_up() -> None:
    adata = make_cells()
    normalised = adata.copy()
    normalised.X = normalised.X * 0.37
    with pytest.raises(ValueError, match="count"):
        RegionSet.setup_anndata(normalised)
    with pytest.raises(TypeError, match="got MuData"):
        RegionSet.setup_anndata(sfa.datasets.pbmc_multiome_sample())
    RegionSet.setup_anndata(adata)
    with pytest.raises(ValueError, match="takes a region-set model"):
        RegionSet(adata, backbone="chromfound-bmmc")
    with pytest.raises(ValueError, match="neither weights nor"):
        RegionSet(adata, backbone=sfa.nn.RegionSetConfig()).train(1)


@pytest.mark.gpu
def test_trained_on_a_gpu(tmp_path: Path) -> None:
    model = make()
    model.train(2, batch_size=64, accelerator="gpu", devices=1)
    assert model.device.type == "cuda"
    z = model.get_latent_representation()
    model.save(tmp_path / "model")
    loaded = RegionSet.load(tmp_path / "model", make_cells(), "cpu")
    np.testing.assert_allclose(loaded.get_latent_representation(), z, atol=1e-2)
    query = RegionSet.load_query_data(make_cells(50, seed=1, batches="BC"), model, accelerator="gpu")
    query.train(1, batch_size=64, accelerator="gpu", devices=1)
    assert np.isfinite(query.get_normalized_accessibility(return_numpy=True)).all()


@pytest.mark.slow
def test_adapted_to_real_cells_neighbours_are_more_often_of_the_same_type() -> None:
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    adata = sfa.datasets.pbmc_multiome_sample()["atac"]
    RegionSet.setup_anndata(adata)
    model = RegionSet(adata)
    model.train(10, accelerator="cpu")
    sfa.tl.embed(adata)
    labels = adata.obs["cell_type"].astype(str)
    adapted, default = (
        cross_val_score(KNeighborsClassifier(15), z, labels, cv=5).mean()
        for z in (model.get_latent_representation(), adata.obsm["X_sfa"])
    )
    assert adapted > default - 0.01
