"""Tools that apply models to cells: embedding, names and labels, expression and perturbation, imputation; and what is known of OCRs."""

from __future__ import annotations

from ._annotate import annotate
from ._describe_ocrs import describe_ocrs
from ._embed import embed
from ._gene_activity import gene_activity
from ._impute import impute
from ._perturb_ocrs import perturb_ocrs
from ._predict_rna import predict_rna

__all__ = ["annotate", "describe_ocrs", "embed", "gene_activity", "impute", "perturb_ocrs", "predict_rna"]
