from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from mudata import MuData
from scipy import sparse

from scfound_atac.hub import Vocabularies, load, save
from scfound_atac.nn import EpiFoundationConfig, EpiFoundationNet
from scfound_atac.pp._liftover_ocrs import liftover_ocrs
from scfound_atac.pp._map_ocrs import map_ocrs
from scfound_atac.pp._parse_ocrs import parse_ocrs

NAMES = ["chr1:100-200", "chr1:300-400", "chr2:100-200", "chrM:1-50"]


def small(names=NAMES, *, genome="GRCh38", seed=0):
    rng = np.random.default_rng(seed)
    adata = ad.AnnData(
        sparse.csr_matrix(rng.poisson(1.0, (6, len(names))).astype(np.float32)),
        obs=pd.DataFrame({"group": list("aabbcc")}, index=[f"cell{i}" for i in range(6)]),
        var=pd.DataFrame({"score": 1.0}, index=names),
    )
    if genome is not None:
        adata.uns["genome"] = genome
    return adata


def test_parse_ocrs_writes_coordinates():
    adata = small(genome=None)
    assert parse_ocrs(adata, genome="hg38") is None
    assert list(adata.var.columns) == ["score", "chrom", "start", "end"]
    assert adata.var["chrom"].tolist() == ["chr1", "chr1", "chr2", "chrM"]
    assert adata.var["end"].dtype == np.int64
    assert adata.uns["genome"] == "GRCh38"
    assert list(adata.var_names) == NAMES


def test_parse_ocrs_copy_and_mudata():
    adata = small()
    assert "chrom" in parse_ocrs(adata, copy=True).var
    assert "chrom" not in adata.var
    data = MuData({"atac": adata})
    parse_ocrs(data)
    assert "chrom" in data["atac"].var


@pytest.mark.parametrize(
    ("names", "genome", "match"),
    [
        (["chr1:1-2", "chr1-1-2"], "GRCh38", r"1 of 2 OCRs repeat.*chr1:1-2.*duplicated"),
        (["gene"], "GRCh38", "not of the form"),
        (NAMES, "mm10", "mm10"),
        (NAMES, None, "too few"),
    ],
)
def test_parse_ocrs_error_leaves_data_alone(names, genome, match):
    adata = small(names, genome=genome)
    with pytest.raises(ValueError, match=match):
        parse_ocrs(adata)
    assert list(adata.var.columns) == ["score"]
    assert adata.uns.get("genome") == genome


def test_map_ocrs_moves_counts_to_the_best_target():
    adata = small()
    target = ["chr1:150-180", "chr1:100-150", "chr1:190-410", "chr3:1-9"]
    mapped = map_ocrs(adata, target)
    x = adata.X.toarray()
    # The first OCR shares 50 bases with the second target, 30 and 10 with the others; the second lies in the third.
    np.testing.assert_array_equal(mapped.X.toarray(), np.column_stack([0 * x[:, 0], x[:, 0], x[:, 1], 0 * x[:, 0]]))
    assert list(mapped.var_names) == target
    assert mapped.obs["group"].tolist() == adata.obs["group"].tolist()
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(mapped.obs["map_ocrs_counts_kept"], x[:, :2].sum(1) / x.sum(1))
        np.testing.assert_allclose(mapped.obs["map_ocrs_open_lost"], (x[:, 2:] > 0).sum(1) / (x > 0).sum(1))
        np.testing.assert_allclose(mapped.obs["map_ocrs_counts_ambiguous"], x[:, 0] / x.sum(1))
    assert mapped.uns["map_ocrs"]["n_ocrs_kept"] == 2
    assert mapped.uns["map_ocrs"]["n_ocrs_ambiguous"] == 1
    assert mapped.uns["map_ocrs"]["n_target_ocrs_reached"] == 2
    assert list(adata.obs.columns) == ["group"]


def test_map_ocrs_tie_goes_to_the_first():
    mapped = map_ocrs(small(), ["chr1:150-200", "chr1:100-150"])
    assert mapped.X[:, 0].sum() > 0
    assert mapped.X[:, 1].sum() == 0


def test_map_ocrs_to_itself_changes_nothing():
    adata = small()
    mapped = map_ocrs(adata, adata)
    np.testing.assert_array_equal(mapped.X.toarray(), adata.X.toarray())
    pd.testing.assert_frame_equal(map_ocrs(adata, adata.var).var, mapped.var)


def test_map_ocrs_result_can_be_written(tmp_path):
    path = tmp_path / "mapped.h5ad"
    map_ocrs(small(), NAMES).write_h5ad(path)
    assert ad.read_h5ad(path).uns["map_ocrs"]["n_ocrs"] == 4


@pytest.mark.parametrize(("kwargs", "n_kept"), [({"min_overlap": 40}, 1), ({"min_coverage": 0.9}, 1), ({}, 2)])
def test_map_ocrs_thresholds(kwargs, n_kept):
    assert map_ocrs(small(), ["chr1:170-450"], **kwargs).uns["map_ocrs"]["n_ocrs_kept"] == n_kept


@pytest.mark.parametrize(
    ("target", "kwargs", "match"),
    [
        (["chr5:1-2"], {}, "No OCR overlaps"),
        (["chr1:1-2"], {"min_overlap": 0}, "min_overlap"),
        (["chr1:1-2"], {"min_coverage": 2.0}, "min_coverage"),
        (["chr1:1-2"], {"min_kept": -0.1}, "min_kept=-0.1"),
        (small(genome="hg19"), {}, "hg19"),
        ("region-set", {}, r"'region-set' has no vocabulary"),
    ],
)
def test_map_ocrs_errors(target, kwargs, match):
    with pytest.raises(ValueError, match=match):
        map_ocrs(small(), target, **kwargs)


def test_map_ocrs_refuses_below_a_floor():
    adata = small()
    is_open = adata.X.toarray() > 0
    share = is_open[:, 0].sum() / is_open.sum()
    mapped = map_ocrs(adata, ["chr1:150-180"], min_kept=share)
    assert mapped.uns["map_ocrs"]["open_kept"] == pytest.approx(share)
    with pytest.raises(ValueError, match=rf"Only {share:.1%} of the open OCRs \(25.0% of the 4 OCRs\).*min_kept=90%"):
        map_ocrs(adata, ["chr1:150-180"], min_kept=0.9)
    adata.X = 0 * adata.X
    adata.X.eliminate_zeros()
    assert map_ocrs(adata, ["chr1:150-180"], min_kept=0.9).X.nnz == 0


@pytest.fixture(scope="module")
def peak_set_model(tmp_path_factory):
    """Folder of a model that knows the last three of four OCRs, in another order, and a peak that the data lack."""
    peaks = ["<cls>", "chr2-100-200", "chr5-1-99", "chr1-350-500", "chrM-1-50"]
    net = EpiFoundationNet(
        EpiFoundationConfig(
            d_model=8, n_layers=1, n_heads=2, d_feed_forward=8, n_peaks=5, n_genes=0, n_chromosomes=0, n_bins=0
        )
    )
    vocabularies = Vocabularies({name: i for i, name in enumerate(peaks)})
    return save(net, tmp_path_factory.mktemp("model"), vocabularies=vocabularies)


@pytest.mark.parametrize("kind", ["folder", "path", "checkpoint", "table"])
def test_map_ocrs_onto_a_vocabulary(peak_set_model, kind):
    checkpoint = load(peak_set_model)
    target = {
        "folder": str(peak_set_model),
        "path": peak_set_model,
        "checkpoint": checkpoint,
        "table": checkpoint.vocabularies.ocrs,
    }[kind]
    adata = small()
    mapped = map_ocrs(adata, target)
    assert mapped.var_names.tolist() == ["chr2:100-200", "chr5:1-99", "chr1:350-500", "chrM:1-50"]
    assert mapped.var["id"].tolist() == [1, 2, 3, 4]
    x = adata.X.toarray()
    np.testing.assert_array_equal(mapped.X.toarray(), np.column_stack([x[:, 2], 0 * x[:, 2], x[:, 1], x[:, 3]]))


def test_map_ocrs_onto_no_model():
    with pytest.raises(KeyError, match="chr1:1-2"):
        map_ocrs(small(), "chr1:1-2")


CHAIN = """\
chain 900 chr1 249250621 + 0 10000 chr1 248956422 + 1000 11000 1
10000

chain 800 chr2 243199373 + 0 250 chr1 248956422 + 1000 1250 2
250

"""


@pytest.fixture
def chain_path(tmp_path):
    path = tmp_path / "small.over.chain"
    path.write_text(CHAIN)
    return path


def test_liftover_ocrs(chain_path):
    adata = small(["chr1:100-200", "chr1:300-400", "chr2:100-200", "chr3:5-9"], genome="hg19")
    before = adata.copy()
    lifted = liftover_ocrs(adata, chain=chain_path)
    assert list(lifted.var_names) == ["chr1:1300-1400"]
    assert lifted.var["liftover_from"].tolist() == ["chr1:300-400"]
    assert lifted.uns["genome"] == "GRCh38"
    assert lifted.uns["liftover_ocrs"] == {"n_ocrs": 4, "n_lifted": 1, "n_unmapped": 1, "n_collided": 2}
    np.testing.assert_array_equal(lifted.X.toarray(), adata.X.toarray()[:, [1]])
    pd.testing.assert_frame_equal(adata.var, before.var)
    assert adata.uns["genome"] == "hg19"


@pytest.mark.parametrize(
    ("names", "genome", "match"),
    [
        (NAMES, "GRCh38", "nothing to lift"),
        (["chr3:1-2"], None, "None of 1"),
        (["chr1:1-300000000"], None, "beyond the end"),
    ],
)
def test_liftover_ocrs_errors(chain_path, names, genome, match):
    with pytest.raises(ValueError, match=match):
        liftover_ocrs(small(names, genome=genome), chain=chain_path)


def test_liftover_ocrs_refuses_a_chain_elsewhere(tmp_path):
    path = tmp_path / "elsewhere.chain"
    path.write_text(CHAIN.replace("248956422", "248387328"))
    with pytest.raises(ValueError, match="does not lead to GRCh38"):
        liftover_ocrs(small(genome="hg19"), chain=path)
