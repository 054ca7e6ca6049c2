"""Train the bundled checkpoint ``chromfound-bmmc`` from scratch.

Data: donor ``BMMC_D6T1`` of ``bone_marrow_atac.h5ad`` (donor ``BMMC_D5T1`` is never read into training) and ``a549_multiome.h5mu``
binarised (its values are normalised). The two OCR sets are visited in turn, the network carries over.

    python scripts/train_bundled.py --data DIR --out src/scfound_atac/hub/bundled/chromfound-bmmc --log scripts/train_bundled.log
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import anndata as ad
import mudata as md
import numpy as np
import torch

import scfound_atac as sfa


def bone_marrow(data: Path) -> ad.AnnData:
    adata = ad.read_h5ad(data / "bone_marrow_atac.h5ad")
    return adata[adata.obs["donor"] == "BMMC_D6T1"].copy()


def a549(data: Path) -> ad.AnnData:
    adata = md.read_h5mu(data / "a549_multiome.h5mu")["atac"].copy()
    adata.X = (adata.X > 0).astype(np.float32)
    return adata


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=2, help="how often both data sets are visited")
    parser.add_argument("--epochs", type=int, default=1, help="epochs per visit")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--crop-size", type=int, default=1024)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--loss-on", choices=["replaced", "all"], default="replaced")
    parser.add_argument("--max-steps", type=int, default=-1, help="steps per visit, if fewer than its epochs have")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop starting new visits after this long")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    warnings.filterwarnings("ignore")
    torch.set_float32_matmul_precision("high")
    sets = {"a549": a549(args.data), "bone_marrow_D6T1": bone_marrow(args.data)}
    began = time.time()
    checkpoint = None
    visits: list[dict[str, object]] = []
    with args.log.open("w") as log:

        def say(**facts: object) -> None:
            line = json.dumps(facts)
            print(line, flush=True)
            print(line, file=log, flush=True)

        hardware = (
            torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
        )
        say(
            torch=torch.__version__,
            hardware=hardware,
            **{k: str(v) for k, v in vars(args).items() if k not in ("out", "log", "data")},
        )
        for visit in range(args.rounds):
            for name, adata in sets.items():
                if (time.time() - began) / 60 > args.minutes:
                    say(stopped="time is up", visit=visit, data=name)
                    continue
                sfa.model.ChromFound.setup_anndata(adata, genome="GRCh38")
                model = sfa.model.ChromFound(adata, checkpoint=checkpoint, seed=args.seed)
                start = time.time()
                model.train(
                    args.epochs,
                    batch_size=args.batch_size,
                    crop_size=args.crop_size,
                    lr=args.lr / 2**visit,
                    loss_on=args.loss_on,
                    max_steps=args.max_steps,
                    train_size=0.95,
                    seed=args.seed + visit,
                    enable_progress_bar=False,
                )
                checkpoint = model.checkpoint
                seconds = time.time() - start
                facts = dict(checkpoint.training)
                tokens = facts["n_steps"] * args.batch_size * facts["crop_size"]
                curve = {k: [round(float(x), 5) for x in v.iloc[:, 0]] for k, v in model.history.items()}
                visits.append(
                    {"data": name, "n_cells": facts["n_cells"], "n_steps": facts["n_steps"], "tokens": tokens, **curve}
                )
                say(visit=visit, seconds=round(seconds, 1), tokens_per_second=round(tokens / seconds), **visits[-1])
                sfa.hub.save(
                    checkpoint.net,
                    args.out,
                    preparation=checkpoint.preparation,
                    training={"visits": visits, "hardware": hardware, "script": "scripts/train_bundled.py"},
                    overwrite=True,
                )
        say(done=True, minutes=round((time.time() - began) / 60, 1))


if __name__ == "__main__":
    main()
