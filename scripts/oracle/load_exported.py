"""What transformers makes of an exported folder: logits of a batch of random tokens.

    python scripts/oracle/load_exported.py FOLDER OUT.npz        # a Python with torch and transformers

OUT.npz then holds `tokens` and `logits`, in float32. Warnings of missing or unexpected weights are errors here.
"""
# pyright: reportMissingImports=false

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import transformers


def main() -> None:
    parser = argparse.ArgumentParser(description="Logits of an exported folder.")
    parser.add_argument("folder", type=Path, help="a folder with config.json and safetensors")
    parser.add_argument("out", type=Path, help="the .npz to write")
    args = parser.parse_args()
    architecture = json.loads((args.folder / "config.json").read_text())["architectures"][0]
    model, report = getattr(transformers, architecture).from_pretrained(
        args.folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    wrong = {name: sorted(map(str, found)) for name, found in report.items() if found}
    assert not wrong, wrong
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, model.config.vocab_size, (2, 16)))
    with torch.no_grad():
        logits = model.eval()(tokens).logits
    np.savez(args.out, tokens=tokens.numpy().astype(np.int32), logits=logits.numpy())


if __name__ == "__main__":
    main()
