"""What transformers makes of an exported folder: logits of a batch of random tokens, and what it writes.

    python scripts/oracle/load_exported.py FOLDER OUT.npz        # a Python with torch and transformers

OUT.npz then holds `tokens` and `logits`, in float32; of a model with encoder and decoder also `decoder_tokens`, and what greedy
search and a beam search of 4 write for the tokens, `greedy` and `beam`, by the folder's own generation_config.json. Warnings of
missing or unexpected weights are errors here.
"""
# pyright: reportMissingImports=false

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

NEW_TOKENS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description="Logits of an exported folder, and what it writes.")
    parser.add_argument("folder", type=Path, help="a folder with config.json and safetensors")
    parser.add_argument("out", type=Path, help="the .npz to write")
    args = parser.parse_args()
    architecture = json.loads((args.folder / "config.json").read_text())["architectures"][0]
    model, report = getattr(transformers, architecture).from_pretrained(
        args.folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    wrong = {name: sorted(map(str, found)) for name, found in report.items() if found}
    assert not wrong, wrong
    rng, written = np.random.default_rng(0), {}
    tokens = torch.from_numpy(rng.integers(0, model.config.vocab_size, (2, 16)))
    given = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            written = search(model.eval(), given)
            size = getattr(model.config, "decoder_vocab_size", model.config.vocab_size)
            given["decoder_input_ids"] = torch.from_numpy(rng.integers(0, size, (2, 5)))
            written["decoder_tokens"] = given["decoder_input_ids"]
        logits = model.eval()(**given).logits
    ids = {name: found.numpy().astype(np.int32) for name, found in (written | {"tokens": tokens}).items()}
    np.savez(args.out, **ids, logits=logits.numpy())


def search(model: Any, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Ids behind the start token."""
    more = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
    return {name: model.generate(**given, **more, num_beams=beams)[:, 1:] for name, beams in (("greedy", 1), ("beam", 4))}


if __name__ == "__main__":
    main()
