"""Several LoRAs of peft on one small model: an adapter for each row of a batch, and weighted combinations.

    python scripts/oracle/peft_mixed.py FOLDER [llama|gpt2]        # a Python with torch, transformers and peft

FOLDER gets `base/`, `first/`, `second/` (adapters of ranks 3 and 5, alpha 7 and 4, other targets in part) and `third/` (rank 3,
targets as `first`), a folder for each combination, saved as an adapter, and `expected.npz`: a batch [1 B T] of peft_models.py;
`logits/<adapter>` of each; `mixed`, of the rows with `first`, no adapter and `second`; `both`, with first and second at once.
"""
# pyright: reportMissingImports=false

import argparse
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from peft_methods import WIDE, perturb
from peft_models import NAMES, batches, build, int32, logits

ADAPTERS = {"first": (3, 7, 0), "second": (5, 4, 1), "third": (3, 2, 0)}
"""Rank, alpha, and how many of the targets to leave out."""
COMBINATIONS: dict[str, tuple[list[str], list[float], dict[str, Any]]] = {
    "linear": (["first", "third"], [0.7, -0.4], {}),
    "cat": (["first", "second"], [0.7, -0.4], {}),
    "svd": (["first", "second"], [0.7, 0.4], {}),
    "svd_rank": (["first", "second"], [0.7, 0.4], {"svd_rank": 2}),
}
"""Adapters, weights, and what else peft is told."""


def write(folder: Path, kind: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    base = build(kind)
    base.save_pretrained(folder / "base")
    model: Any = None
    for name, (rank, alpha, without) in ADAPTERS.items():
        config = peft.LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, target_modules=WIDE[kind][without:])
        if model is None:
            model = peft.get_peft_model(base, config, adapter_name=name)
        else:
            model.add_adapter(name, config)
        model.set_adapter(name)
        perturb(model, seed=rank)
    for name, (adapters, weights, more) in COMBINATIONS.items():
        model.add_weighted_adapter(adapters, weights, name, combination_type=name.split("_")[0], **more)
    model.eval().save_pretrained(str(folder))
    arrays = {name: array[:1] for name, array in batches(kind).items()}
    found = dict(arrays)
    for name in (*ADAPTERS, *COMBINATIONS):
        model.set_adapter(name)
        found[f"logits/{name}"] = logits(model, arrays)
    given = {theirs: torch.from_numpy(arrays[ours][0]) for ours, theirs in NAMES.items() if ours in arrays}
    model.set_adapter("first")
    with torch.no_grad():
        found["mixed"] = model(**given, adapter_names=["first", "__base__", "second"]).logits.numpy()[None]
    model.base_model.set_adapter(["first", "second"])
    found["both"] = logits(model, arrays)
    np.savez(folder / "expected.npz", **int32(found))
    gap = abs(found["mixed"][0, 0] - found["logits/first"][0, 0]).max()
    print(
        f"{kind}: mixed off by {gap:.1e}; svd moves logits by {abs(found['logits/svd'] - found['logits/svd_rank']).max():.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Several adapters at once, as peft has them.")
    parser.add_argument("folder", type=Path, help="where all goes; what is there is deleted")
    parser.add_argument("kind", nargs="?", choices=("llama", "gpt2"), default="llama")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    write(args.folder, args.kind)


if __name__ == "__main__":
    main()
