"""Trains a LoRA of peft with torch's AdamW from a start that is given, on batches that are given.

    python scripts/oracle/peft_lora_steps.py BASE IN.npz OUT.npz [--make]        # a Python with torch, transformers and peft

BASE is a folder of a causal language model. IN.npz: `config`, JSON with the fields of `DEFAULTS`; `tokens`, `mask` and
`positions` [S B T], a batch a step; `A/<module>` [R in] and `B/<module>` [out R], the start of each matrix, named by the path
of its module in transformers. OUT.npz: `loss` [S], before each step, `norm` [S], the norm of the gradients before any clipping,
`A/<module>` and `B/<module>` [S ...] after each step. The loss is the mean over all next tokens under the mask.
With --make BASE (a small Llama) and IN.npz are written first.
"""
# pyright: reportMissingImports=false

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from peft.optimizers import create_loraplus_optimizer
from peft_models import PADDING, VOCABULARY, B, T, build

STEPS = 20
DEFAULTS: dict[str, Any] = {
    "r": 3,
    "lora_alpha": 7,
    "use_rslora": False,
    "target_modules": ["q_proj", "v_proj", "down_proj"],
    "learning_rate": 1e-2,
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "weight_decay": 0.01,
    "clip_norm": None,
    "loraplus_ratio": None,
}
"""What is not in `config`."""
OPTIMIZER = ("learning_rate", "betas", "eps", "weight_decay", "clip_norm", "loraplus_ratio")


def adapted(base: Path, config: dict[str, Any]) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    fields = {name: value for name, value in config.items() if name not in OPTIMIZER}
    return peft.get_peft_model(model.eval(), peft.LoraConfig(task_type="CAUSAL_LM", **fields))


def matrices(model: Any) -> dict[str, torch.nn.Parameter]:
    """The trained matrices, named as in the files."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            module, letter = name.removeprefix("base_model.model.").removesuffix(".default.weight").split(".lora_")
            found[f"{letter}/{module}"] = parameter
    return found


def make(base: Path, path: Path) -> None:
    build("llama").save_pretrained(base)
    rng, mask = np.random.default_rng(0), np.ones((STEPS, B, T), np.int64)
    for row, (before, after) in enumerate(PADDING):
        mask[:, row, :before] = mask[:, row, T - after :] = 0
    arrays: dict[str, Any] = {"tokens": np.where(mask == 1, rng.integers(3, VOCABULARY, mask.shape), 0), "mask": mask}
    arrays["positions"] = np.maximum(mask.cumsum(-1) - 1, 0)
    for name, parameter in matrices(adapted(base, DEFAULTS)).items():
        start = 0.2 * rng.standard_normal(parameter.shape) if name.startswith("A") else np.zeros(parameter.shape)
        arrays[name] = start.astype(np.float32)
    np.savez(path, config=np.array(json.dumps(DEFAULTS)), **arrays)


def make_optimizer(model: Any, config: dict[str, Any]) -> torch.optim.Optimizer:
    more = {"betas": tuple(config["betas"]), "eps": config["eps"]}
    if config["loraplus_ratio"] is None:
        trained = list(matrices(model).values())
        return torch.optim.AdamW(trained, lr=config["learning_rate"], weight_decay=config["weight_decay"], **more)
    return create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=config["learning_rate"],
        loraplus_lr_ratio=config["loraplus_ratio"],
        loraplus_weight_decay=config["weight_decay"],
        **more,
    )


def train(model: Any, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    trained, optimizer = matrices(model), make_optimizer(model, config)
    for name, parameter in trained.items():
        parameter.data = torch.from_numpy(arrays[name].astype(np.float32).copy())
    found: list[dict[str, np.ndarray]] = []
    for tokens, mask, positions in zip(*(torch.from_numpy(arrays[key].astype(np.int64)) for key in KEYS), strict=True):
        labels = tokens.masked_fill(mask == 0, -100)
        loss = model(input_ids=tokens, attention_mask=mask, position_ids=positions, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        limit = float("inf") if config["clip_norm"] is None else config["clip_norm"]
        norm = torch.nn.utils.clip_grad_norm_(list(trained.values()), limit)
        optimizer.step()
        after = {name: parameter.detach().numpy().copy() for name, parameter in trained.items()}
        found.append({"loss": loss.detach().numpy(), "norm": norm.numpy(), **after})
    return {key: np.stack([one[key] for one in found]) for key in found[0]}


KEYS = ("tokens", "mask", "positions")


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps of peft's LoRA under AdamW.")
    parser.add_argument("base", type=Path, help="a folder of a causal language model")
    parser.add_argument("given", type=Path, help="the .npz with config, batches and starts")
    parser.add_argument("out", type=Path, help="the .npz to write")
    parser.add_argument("--make", action="store_true", help="write a base and an example to the first two before")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.make:
        make(args.base, args.given)
    with np.load(args.given) as stored:
        arrays = {name: stored[name] for name in stored.files}
    config = DEFAULTS | json.loads(str(arrays["config"]))
    found = train(adapted(args.base, config), config, arrays)
    np.savez(args.out, **found)
    print("losses:", *(f"{loss:.4f}" for loss in found["loss"]))


if __name__ == "__main__":
    main()
