"""Links by perturbation: the predictor, the genes that it knows, and the changes that it expects in all groups of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._logging import logger
from ._links_table import columns_of_genes, places_of

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from ..data import Cells
    from ..inference.link_features import Pairs
    from ..inference.links import Scored
    from ..model import RNAPredictor


class Perturbations:
    """Changes of expression that a predictor expects in groups of cells.

    Attributes
    ----------
    promoters
        Starts of transcription of the genes that the predictor knows.
    """

    def __init__(self, predictor: RNAPredictor | str | Path, promoters: pd.DataFrame, *, seed: int) -> None:
        import pandas as pd

        from ..model import RNAPredictor

        self.predictor = predictor if isinstance(predictor, RNAPredictor) else RNAPredictor.load(predictor)
        known = self.predictor.check_genes(None)
        column = columns_of_genes(pd.Index(known), promoters)
        if (column < 0).all():
            some = ", ".join(promoters["name"].iloc[:3])
            msg = (
                f"The predictor knows none of the {promoters['gene'].nunique()} genes ({some}, ...); predictor.genes lists the "
                f"{len(known)} that it was trained on."
            )
            raise ValueError(msg)
        used, self.gene = np.unique(column[column >= 0], return_inverse=True)
        if n_lost := promoters["gene"].nunique() - len(used):
            logger.info("%d of %d genes are not known to the predictor and get no links", n_lost, n_lost + len(used))
        self.genes = [known[i] for i in used]
        self.promoters = promoters[column >= 0].reset_index(drop=True)
        self.seed = seed

    def __call__(self, cells: Cells, pairs: Pairs, codes: NDArray[np.int64], sums: NDArray[np.float64]) -> list[Scored]:
        """Score the pairs in each group; `codes` (n_cells,) are the groups of cells, `sums` (n_groups, n_ocrs) their values."""
        from ..inference.links import Scored
        from ..inference.perturbation_links import perturbation_links

        ocrs, genes, breadth = places_of(cells.ocrs, self.promoters, self.gene)
        nothing = np.full(len(pairs.ocr), np.nan, dtype=np.float32)
        found = perturbation_links(
            lambda sets, wanted: self.predictor.perturb(
                cells,
                sets,
                genes=[self.genes[i] for i in wanted],
                groups=codes,
                n_groups=len(sums),
                with_decoys=True,
            ),
            self.predictor.decoy_weights(cells.ocrs, self.genes),
            sums.sum(axis=0),
            pairs.ocr,
            self.gene[pairs.start],
            ocrs=ocrs,
            genes=genes,
            breadth=breadth,
            n_groups=len(sums),
            seed=self.seed,
        )
        return [Scored(links.score, nothing, links.p, links.q) for links in found]
