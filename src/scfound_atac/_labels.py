from __future__ import annotations

import numpy as np
import pandas as pd


def read_labels(column, key, *, role="adata", n_min=2):
    names = column.astype(object)
    text = names.astype(str).str.strip()
    text = text.where(names.notna() & (text != "") & (text != "unknown"))
    codes, labels = pd.factorize(text, sort=True)
    return codes.astype(np.int64), [str(label) for label in labels]
