from __future__ import annotations

import pandas as pd

from scfound_atac.genome.regions_of_ocrs import regions_of_ocrs


def test_overlaps_are_tied_also_by_way_of_others() -> None:
    rows = [
        ("chr2", 100, 200),
        ("chr1", 100, 200),
        ("chr1", 150, 300),  # overlaps the one before
        ("chr1", 290, 400),  # and the next this one
        ("chr1", 400, 500),  # only touches
        ("chr2", 199, 250),
    ]
    found = regions_of_ocrs(pd.DataFrame(rows, columns=["chrom", "start", "end"], index=list("abcdef")))
    assert found[1] == found[2] == found[3]
    assert found[0] == found[5]
    assert sorted(set(found)) == [0, 1, 2]
    assert len({found[0], found[1], found[4]}) == 3
