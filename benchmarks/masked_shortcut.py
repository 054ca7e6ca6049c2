"""How far a rule without any learning gets on ChromFound's masked objective (arXiv 2505.12638, section 3.3).

The loss is taken at replaced positions only: zeros that were given an open value, and open values that were set to zero. A rule that
answers the opposite of what it sees needs no other OCR.

    python benchmarks/masked_shortcut.py --data DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import torch

from scfound_atac.data import prepare_rows
from scfound_atac.nn.masking import mask_values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with bone_marrow_atac.h5ad")
    parser.add_argument("--n-cells", type=int, default=1000)
    args = parser.parse_args()

    adata = ad.read_h5ad(args.data / "bone_marrow_atac.h5ad")
    cells = adata[adata.obs["donor"] == "BMMC_D6T1"][: args.n_cells]
    value = torch.from_numpy(prepare_rows(cells.X.tocsr()).toarray())
    seen, mask = mask_values(value, generator=torch.Generator().manual_seed(0))
    open_mean = value.sum(1, keepdim=True) / (value > 0).sum(1, keepdim=True).clamp(min=1)
    answers = {
        "zero everywhere": torch.zeros_like(value),
        "the cell's mean open value everywhere": open_mean.expand_as(value),
        "the opposite of what is seen": torch.where(seen > 0, 0.0, open_mean),
    }
    for name, predicted in answers.items():
        error = ((predicted - value) ** 2 * mask).sum(1) / mask.sum(1).clamp(min=1)
        print(f"{name:40}{error.mean():.4f}")


if __name__ == "__main__":
    main()
