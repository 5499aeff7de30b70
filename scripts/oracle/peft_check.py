"""What peft makes of an adapter written by jaxllm: logits, and what the model writes.

    python scripts/oracle/peft_check.py FOLDER OUT.npz        # a Python with torch, transformers and peft

FOLDER holds `base/` and `adapter/` in the Hugging Face layout, and `inputs.npz`: `tokens` and `mask` [batches B T] and, where
the model reads them, `positions`, `token_types`, `decoder_tokens`; it may hold prompts to go on from, `prompt` and
`prompt_mask` [B T]. OUT.npz then holds `logits`, `base_logits` and, where the adapter can be merged, `merged_logits`; behind
prompts `greedy` and `beam` (a beam search of 4). A tensor that peft misses or does not know is an error here.
"""
# pyright: reportMissingImports=false

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from peft_models import NAMES, logits
from safetensors.numpy import load_file

NEW_TOKENS = 7


def load_base(folder: Path) -> Any:
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, report = getattr(transformers, architecture).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    wrong = {name: sorted(map(str, found)) for name, found in report.items() if found}
    assert not wrong, wrong
    return model.eval()


def load(folder: Path) -> Any:
    """The base with the adapter; whatever peft leaves out of the file, or does not find there, is named."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model: Any = peft.PeftModel.from_pretrained(load_base(folder / "base"), str(folder / "adapter")).eval()
        known = peft.get_peft_model_state_dict(model)
    for warning in caught:
        if "missing adapter keys" in str(warning.message):
            raise ValueError(str(warning.message))
        print(f"warning: {warning.message}")
    stored = load_file(folder / "adapter" / "adapter_model.safetensors")
    unknown, missing = sorted(stored.keys() - known.keys()), sorted(known.keys() - stored.keys())
    assert not unknown and not missing, f"unknown to peft: {unknown}; not in the file: {missing}"
    for name, array in stored.items():
        assert np.array_equal(array, known[name].detach().numpy()), f"{name} is not what peft read"
    return model


def search(model: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Ids behind the prompts, or behind the start token of a decoder with an encoder."""
    given = {"input_ids": torch.from_numpy(inputs["prompt"]), "attention_mask": torch.from_numpy(inputs["prompt_mask"])}
    start = 1 if model.config.is_encoder_decoder else inputs["prompt"].shape[1]
    more = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
    return {
        name: model.generate(**given, **more, num_beams=beams)[:, start:].numpy().astype(np.int32)
        for name, beams in (("greedy", 1), ("beam", 4))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Logits of an exported adapter, read by peft.")
    parser.add_argument("folder", type=Path, help="a folder with base/, adapter/ and inputs.npz")
    parser.add_argument("out", type=Path, help="the .npz to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(args.folder / "inputs.npz") as stored:
        inputs = {name: stored[name].astype(np.int64) for name in stored.files}
    batches = {name: inputs[name] for name in NAMES if name in inputs}
    model = load(args.folder)
    found: dict[str, Any] = {"logits": logits(model, batches), "base_logits": logits(load_base(args.folder / "base"), batches)}
    if "prompt" in inputs:
        found |= search(model, inputs)
    if not model.active_peft_config.is_prompt_learning:
        found["merged_logits"] = logits(model.merge_and_unload(), batches)
    np.savez(args.out, **found)
    print(f"{model.active_peft_config.peft_type.value}: {', '.join(f'{name} {array.shape}' for name, array in found.items())}")


if __name__ == "__main__":
    main()
