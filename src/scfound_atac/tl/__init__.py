"""Apply models to cells: embedding, names, expression and perturbation, imputation; links of OCRs and genes; facts about OCRs."""

from __future__ import annotations

from ._annotate import annotate
from ._describe_ocrs import describe_ocrs
from ._embed import embed
from ._embed_joint import embed_joint
from ._gene_activity import gene_activity
from ._impute import impute
from ._link_enhancers import link_enhancers
from ._perturb_ocrs import perturb_ocrs
from ._predict_rna import predict_rna

__all__ = [
    "annotate",
    "describe_ocrs",
    "embed",
    "embed_joint",
    "gene_activity",
    "impute",
    "link_enhancers",
    "perturb_ocrs",
    "predict_rna",
]
