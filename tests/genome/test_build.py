from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest

from scfound_atac.genome import CHROMOSOME_SIZES, CHROMOSOMES, check_genome, get_ocrs, liftover, read_chain
from scfound_atac.genome.build import declared_genome
from scfound_atac.genome.ocrs import read_ocrs

SETS = [
    "a549_multiome.h5mu",
    "bmmc_multiome_1.h5mu",
    "bmmc_multiome_2.h5mu",
    "bone_marrow_atac.h5ad",
    "k562_chr22_atac.h5ad",
    "pbmc_multiome.h5mu",
]


@pytest.fixture(scope="module", params=SETS)
def real_ocrs(request, data_dir):
    path = data_dir / request.param
    atac = ad.read_h5ad(path, backed="r") if path.suffix == ".h5ad" else md.read_h5mu(path)["atac"]
    return get_ocrs(atac.var)


@pytest.fixture(scope="module")
def to_hg19(data_dir):
    chain = read_chain(data_dir / "genome" / "hg19ToHg38.over.chain.gz", inverted=True)

    def lift(ocrs):
        lifted = liftover(ocrs, chain)
        return lifted[lifted["chrom"].isin(CHROMOSOMES)].astype({"start": np.int64, "end": np.int64})

    return lift


def random_ocrs(n_ocrs, seed):
    rng = np.random.default_rng(seed)
    chrom = rng.choice(np.array(CHROMOSOMES, dtype=object), n_ocrs)
    start = np.array([rng.integers(0, CHROMOSOME_SIZES["GRCh38"][name] - 500) for name in chrom])
    return pd.DataFrame({"chrom": chrom, "start": start, "end": start + 500})


@pytest.mark.parametrize("n_ocrs", [200, 599, None])
def test_real_sets_are_recognised(real_ocrs, to_hg19, n_ocrs):
    ocrs = real_ocrs if n_ocrs is None else real_ocrs.sample(n_ocrs, random_state=0)
    assert check_genome(ocrs) == "GRCh38"
    with pytest.raises(ValueError, match="look like hg19.*liftover_ocrs.*hgdownload"):
        check_genome(to_hg19(ocrs))


def test_peaks_on_other_chromosomes_are_not_recognised(real_ocrs):
    # The spacing of real peaks on chromosomes they do not belong to, as another species would look.
    chrom = real_ocrs["chrom"].map(dict(zip(CHROMOSOMES, CHROMOSOMES[::-1], strict=True)))
    moved = real_ocrs.assign(chrom=chrom)
    moved = moved[(moved["end"] <= moved["chrom"].map(CHROMOSOME_SIZES["GRCh38"])).to_numpy()]
    with pytest.raises(ValueError, match='genome="GRCh38"'):
        check_genome(moved)


@pytest.mark.parametrize("n_ocrs", [30, 100, 1000, 50_000])
def test_random_places_are_not_recognised(n_ocrs):
    for seed in range(3):
        with pytest.raises(ValueError, match='Cannot recognise.*genome="GRCh38"'):
            check_genome(random_ocrs(n_ocrs, seed))


@pytest.mark.parametrize("width", [500, 5000])
def test_tiles_are_not_recognised(width):
    start = np.arange(0, 60_000_000, width)
    tiles = pd.concat(
        [pd.DataFrame({"chrom": name, "start": start, "end": start + width}) for name in ("chr1", "chr8")]
    )
    with pytest.raises(ValueError, match="bins that cover the genome"):
        check_genome(tiles)


def test_few_ocrs_need_a_declaration():
    ocrs = random_ocrs(29, 0)
    with pytest.raises(ValueError, match='29 OCRs .* too few.*genome="GRCh38"'):
        check_genome(ocrs)
    assert check_genome(ocrs, "GRCh38") == check_genome(ocrs, "HG38") == "GRCh38"


@pytest.mark.parametrize("genome", ["hg19", "GRCh37"])
def test_declared_hg19(genome):
    with pytest.raises(ValueError, match=f"{genome}.*liftover_ocrs"):
        check_genome(random_ocrs(5, 0), genome)


@pytest.mark.parametrize("genome", ["mm10", "mm39", "GRCm38", "human"])
def test_declared_other(genome):
    with pytest.raises(ValueError, match=f"'{genome}'.*GRCh38"):
        check_genome(random_ocrs(5, 0), genome)


@pytest.mark.parametrize("genome", [None, "GRCh38"])
def test_beyond_the_end(genome):
    ocrs = random_ocrs(100, 0)
    ocrs.loc[7] = ["chr21", 50_000_000, 50_000_500]
    with pytest.raises(ValueError, match="1 of 100 OCRs .*beyond the end.*chr21:50000000-50000500"):
        check_genome(ocrs, genome)


def test_scaffolds_do_not_count():
    ocrs = pd.DataFrame({"chrom": "chrUn_1", "start": np.arange(100), "end": 10**9})
    assert check_genome(ocrs, "GRCh38") == "GRCh38"
    with pytest.raises(ValueError, match="^0 OCRs"):
        check_genome(ocrs)


def test_read_ocrs() -> None:
    var = pd.DataFrame(index=["chr1:1-2", "chr2-5-9"])
    assert read_ocrs(var, uns_genome="hg38")["start"].tolist() == [1, 5]
    with pytest.raises(ValueError, match="hg19"):
        read_ocrs(var, genome="hg19", uns_genome="GRCh38")
    with pytest.raises(ValueError, match="too few"):
        read_ocrs(var)
    with pytest.raises(ValueError, match="1 of 2 OCRs repeat"):
        read_ocrs(var.set_axis(["chr1:1-2", "1-1-2"], axis=0), genome="GRCh38")


@pytest.mark.parametrize(
    "value",
    [
        "GRCh38",
        " GRCh38 ",
        b"GRCh38",
        np.str_("GRCh38"),
        np.bytes_(b"GRCh38"),
        np.array("GRCh38"),
        np.array(["GRCh38"]),
        np.array(["GRCh38", "GRCh38"], dtype=object),
        np.array([b"GRCh38"]),
        np.array([["GRCh38"]]),
        ["GRCh38", None, "GRCh38"],
        ("GRCh38",),
        pd.Series(["GRCh38", np.nan]),
        pd.Index(["GRCh38"]),
        pd.Categorical(["GRCh38", "GRCh38"]),
        pd.Series(["GRCh38"] * 3, dtype="category"),
        ["GRCh38", "hg38"],
    ],
    ids=repr,
)
def test_declared_in_any_form(value) -> None:
    assert declared_genome(value) == "GRCh38"
    assert check_genome(random_ocrs(5, 0), value) == "GRCh38"


@pytest.mark.parametrize("value", [None, "", np.nan, [], np.array([]), [None], pd.NA, "nan"], ids=repr)
def test_nothing_declared(value) -> None:
    assert declared_genome(value) is None


def test_several_declared() -> None:
    with pytest.raises(ValueError, match="Several genome builds are declared: \\['GRCh38', 'mm10'\\]"):
        declared_genome(np.array(["GRCh38", "mm10", "GRCh38"]))


@pytest.mark.parametrize("value", [38, {"name": "GRCh38"}, [38]], ids=repr)
def test_declared_as_no_text(value) -> None:
    with pytest.raises(TypeError, match='must be text such as "GRCh38"'):
        declared_genome(value)


@pytest.mark.parametrize(
    "genome", ["GRCh38.p13", "hg38", "GRCh38-2020-A", "refdata-cellranger-arc-GRCh38-2020-A-2.0.0", "b38"]
)
def test_spellings_of_grch38(genome: str) -> None:
    assert check_genome(random_ocrs(5, 0), genome) == "GRCh38"


# To declare GRCh38 is advised where it would help, and nowhere else.
@pytest.mark.parametrize(
    ("ocrs", "genome", "helps"),
    [
        (random_ocrs(29, 0), None, True),
        (random_ocrs(1000, 0), None, True),
        (random_ocrs(1000, 0), "human", True),
        (random_ocrs(1000, 0), "mm10", False),
        (random_ocrs(1000, 0), "GRCm39", False),
        (random_ocrs(1000, 0), "Mus musculus", False),
        (random_ocrs(1000, 0), "hg19", False),
        (random_ocrs(1000, 0), "hg18", False),
        (random_ocrs(1000, 0), "T2T-CHM13v2.0", False),
        (random_ocrs(10, 0).assign(end=10**9), None, False),
        (random_ocrs(1000, 0).assign(end=10**9), None, False),
        (random_ocrs(1000, 0).assign(end=10**9), "GRCh38", False),
    ],
)
@pytest.mark.parametrize("role", ["adata", "reference", 'mdata["atac"]'])
def test_when_a_declaration_is_advised(ocrs, genome, helps, role) -> None:
    with pytest.raises(ValueError, match="GRCh38") as error:
        check_genome(ocrs, genome, role=role)
    assert (f'{role}.uns["genome"] = "GRCh38"' in str(error.value)) is helps
    assert ('genome="GRCh38"' in str(error.value)) is (helps and role != "reference")
    assert role in str(error.value)
