"""Tools that apply models to cells: embedding, labels, expression, imputation."""

from __future__ import annotations

from ._annotate import annotate
from ._embed import embed
from ._gene_activity import gene_activity
from ._impute import impute
from ._predict_rna import predict_rna

__all__ = ["annotate", "embed", "gene_activity", "impute", "predict_rna"]
