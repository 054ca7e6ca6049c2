from __future__ import annotations

import numpy as np
import pandas as pd

from scfound_atac.genome import read_genes, transcription_starts
from scfound_atac.genome.promoters import load_promoters


def ocrs(*rows: tuple[str, int, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["chrom", "start", "end"])


def test_distance_and_its_sign() -> None:
    # TP53 lies on the minus strand and starts at 7,687,537; HBB, on the minus strand too, at 5,227,070; GAPDH, plus, at 6,534,404.
    genes, distance = load_promoters().nearest(
        ocrs(
            ("chr17", 7_687_400, 7_687_700),
            ("chr12", 6_534_000, 6_534_100),
            ("chr12", 6_534_500, 6_534_600),
            ("chrM", 1, 50),
        )
    )
    assert genes[:3].tolist() == ["TP53", "GAPDH", "GAPDH"]
    assert distance[0] == 0
    assert distance[1] < 0 < distance[2]  # upstream, downstream
    assert genes[3] == ""
    assert np.isnan(distance[3])


def test_nearest_is_the_nearest_of_all(data_dir) -> None:
    genes = read_genes(data_dir / "genome" / "genes_grch38.bed")
    genes = genes.assign(tss=transcription_starts(genes))
    rng = np.random.default_rng(0)
    rows = [(f"chr{rng.integers(1, 23)}", s := int(rng.integers(1_000_000, 40_000_000)), s + 500) for _ in range(200)]
    asked = ocrs(*rows)
    found, distance = load_promoters().nearest(asked)
    for (chrom, start, end), name, far in zip(rows, found, distance, strict=True):
        there = genes[genes["chrom"] == chrom]
        tss = there["tss"].to_numpy()
        all_distances = np.maximum(np.maximum(start - tss, tss - (end - 1)), 0)
        assert abs(far) == all_distances.min()
        assert name in set(there["name"][all_distances == all_distances.min()])
