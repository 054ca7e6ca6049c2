"""Links by correlation: expression of the genes that are linked, and groups of cells to correlate over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._anndata import NotFoundError, get_atac, role_of
from .._logging import logger
from ._links_table import columns_of_genes, places_of

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from ..data import Cells
    from ..inference.link_features import Pairs
    from ..inference.links import Scored
    from ..inference.matched_null import Places
    from ..train.expression import Expression

_MIN_CELLS = 10  # metacells: over fewer a correlation says nothing, whatever its p


class Correlations:
    """Correlations of accessibility and expression in groups of cells.

    Attributes
    ----------
    promoters
        Starts of transcription of the genes that have expression.
    """

    def __init__(
        self,
        data: Any,
        atac: AnnData,
        promoters: pd.DataFrame,
        *,
        rna_modality: str,
        rna_layer: str | None,
        use_rep: str,
        n_cells: int,
        seed: int,
    ) -> None:
        from ..train.expression import read_expression

        role = role_of(data)
        if not hasattr(data, "mod"):
            msg = (
                "method='correlation' needs expression beside accessibility: pass a MuData with both, "
                "mdata = mudata.MuData({'atac': adata, 'rna': rna}), or use method='knowledge'."
            )
            raise TypeError(msg)
        if n_cells > 1 and use_rep not in atac.obsm:
            msg = (
                f"There is no {use_rep!r} in {role}.obsm, in which like cells would be put together (n_cells={n_cells}). Run "
                "sfa.tl.embed first, pass use_rep= another key, or leave out n_cells= to correlate over single cells."
            )
            raise NotFoundError(msg)
        rna = get_atac(data, rna_modality, "adata", modality_argument="rna_modality", holds="expression")
        column = columns_of_genes(rna.var_names, promoters)
        if (column < 0).all():
            some = ", ".join(promoters["name"].iloc[:3])
            msg = f"None of the {promoters['gene'].nunique()} genes ({some}, ...) is in modality {rna_modality!r}; see its var_names."
            raise ValueError(msg)
        used, self.gene = np.unique(column[column >= 0], return_inverse=True)
        if n_lost := promoters["gene"].nunique() - len(used):
            logger.info("%d of %d genes have no expression and get no links", n_lost, n_lost + len(used))
        self.expression: Expression = read_expression(
            data,
            atac,
            modality=rna_modality,
            layer=rna_layer,
            genes=list(rna.var_names[used]),
            binned=False,
            role="adata",
        )
        self.rows = atac.obs_names.get_indexer(self.expression.names)
        self.promoters = promoters[column >= 0].reset_index(drop=True)
        self.vectors = np.asarray(atac.obsm[use_rep]) if n_cells > 1 else None
        self.n_cells, self.seed = n_cells, seed

    def __call__(self, cells: Cells, pairs: Pairs, codes: NDArray[np.int64], sums: NDArray[np.float64]) -> list[Scored]:
        """Score the pairs in each group; `codes` is the number of the group of each cell, and `sums` has a row for each group."""
        places = places_of(cells.ocrs, self.promoters, self.gene)
        return [self._of_group(cells, pairs, codes == number, *places) for number in range(len(sums))]

    def _of_group(
        self,
        cells: Cells,
        pairs: Pairs,
        is_member: NDArray[np.bool_],
        ocrs: Places,
        genes: Places,
        breadth: NDArray[np.float32],
    ) -> Scored:
        """Score the pairs over the cells `is_member` that have expression; all NaN if these are fewer than ten."""
        from ..inference.correlation_links import correlation_links
        from ..inference.links import Scored
        from ..inference.metacells import metacells, sum_groups

        # 1. Cells, or sums of like cells.
        own = np.flatnonzero(is_member[self.rows])
        counts, values = cells.to_memory(self.rows[own]), self.expression.values[own]
        if self.vectors is not None and len(own) > self.n_cells:
            group = metacells(self.vectors[self.rows[own]], self.n_cells)
            counts, values = sum_groups(counts, group), sum_groups(values, group, mean=True)
        nothing = np.full(len(pairs.ocr), np.nan, dtype=np.float32)
        if len(values) < _MIN_CELLS or len(pairs.ocr) == 0:
            if len(pairs.ocr):
                logger.warning("A group has %d cells with both modalities: too few for a correlation", len(values))
            return Scored(nothing, nothing, nothing, nothing)
        # 2. Correlations.
        found = correlation_links(
            counts,
            values,
            pairs.ocr,
            self.gene[pairs.start],
            ocrs=ocrs,
            genes=genes,
            breadth=breadth,
            seed=self.seed,
        )
        return Scored(found.score, nothing, found.p, found.q)
