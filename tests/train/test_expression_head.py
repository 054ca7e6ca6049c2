from __future__ import annotations

import numpy as np
import pytest

import scfound_atac as sfa
from scfound_atac.train.expression_head import gene_pearson


def testgene_pearson_is_that_of_expression_scores():
    rng = np.random.default_rng(0)
    measured, predicted = rng.normal(size=(2, 30, 5)).astype(np.float32)
    measured[:, 1], predicted[:, 2] = 3.3, 1.7
    expected = sfa.bench.expression_scores(measured, predicted)["gene_pearson"]
    assert gene_pearson(measured, predicted) == pytest.approx(expected, abs=1e-6)
    assert np.isnan(gene_pearson(measured[:, 1:2], predicted[:, 1:2]))
