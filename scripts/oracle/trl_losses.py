"""Losses of instruction and preference tuning as TRL computes them, for a small causal language model.

    python scripts/oracle/trl_losses.py BASE OUT.npz        # a Python with torch, transformers and trl 1.16

BASE is a folder of a causal language model with 61 tokens. OUT.npz has what was given, texts of N examples padded on the
right: `tokens`, `said` (whose prediction counts) and `lengths` for instruction tuning; for preferences
`{chosen,rejected}_{tokens,answer,lengths}` and `reference` [N 2]; and what TRL makes of it: `sft` (the mean over all tokens
that count), `sft_packed` (the same with all texts in one row), `sft_each`; for each kind of loss `dpo_<kind>` [N], pair by
pair, `rewards` [N 2]; `orpo` [N] and `orpo_rewards` [N 2], pair by pair, with the likelihood of prompt and answer.
"""
# pyright: reportMissingImports=false

import argparse
import collections
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from trl.experimental.orpo.orpo_trainer import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import selective_log_softmax

N, VOCABULARY, BETA = 4, 61, 0.3
KINDS = ("sigmoid", "hinge", "ipo")


def texts(rng: np.random.Generator, width: int) -> dict[str, np.ndarray]:
    lengths = rng.integers(width // 2, width + 1, N)
    lengths[0] = width
    tokens = rng.integers(1, VOCABULARY, (N, width)) * (np.arange(width) < lengths[:, None])
    return {"tokens": tokens, "lengths": lengths}


def make() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    given = texts(rng, 14)
    place = np.arange(14)
    said = ((place >= 3) & (place < 6) | (place >= 8)) & (place < given["lengths"][:, None])  # two answers
    given |= {"said": said.astype(np.int64), "reference": rng.normal(-18, 4, (N, 2)).astype(np.float32)}
    prompts = rng.integers(1, VOCABULARY, (N, 5))
    for name, width in (("chosen", 13), ("rejected", 11)):
        pair = texts(rng, width)
        pair["tokens"][:, :5] = prompts
        answer = (np.arange(width) >= 5) & (np.arange(width) < pair["lengths"][:, None])
        given |= {f"{name}_{key}": value for key, value in (pair | {"answer": answer.astype(np.int64)}).items()}
    return given


def sft(model: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    examples = [
        {"input_ids": ids[:n].tolist(), "labels": np.where(said[:n] > 0, ids[:n], -100).tolist()}
        for ids, said, n in zip(given["tokens"], given["said"], given["lengths"], strict=True)
    ]
    packed = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(examples)
    kept = {name: packed[name] for name in ("input_ids", "labels", "position_ids")}
    together = DataCollatorForLanguageModeling(pad_token_id=0)(examples)
    each = [model(**DataCollatorForLanguageModeling(pad_token_id=0)([one])).loss.item() for one in examples]
    found = {"sft": model(**together).loss.item(), "sft_packed": model(**kept, use_cache=False).loss.item(), "sft_each": each}
    return {name: np.array(value) for name, value in found.items()}


def trainer(**fields: Any) -> SimpleNamespace:
    """As much of a trainer as the methods that compute a loss look at."""
    itself = SimpleNamespace(
        gather_for_metrics=lambda value: value, gather=lambda value: value, device="cpu", unwrap_model=lambda model: model
    )
    metrics = {"train": collections.defaultdict(list), "eval": collections.defaultdict(list)}
    return SimpleNamespace(accelerator=itself, beta=BETA, aux_loss_enabled=False, _metrics=metrics, **fields)


def dpo(model: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    def outputs(input_ids: Any, attention_mask: Any, labels: Any, **_: Any) -> SimpleNamespace:
        logits = model(input_ids=input_ids, attention_mask=attention_mask).logits[:, :-1]
        target = labels[:, 1:]
        log_probs = selective_log_softmax(logits, target.clamp(min=0)).masked_fill(target == -100, 0.0)
        zeros = torch.zeros_like(log_probs)
        return SimpleNamespace(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())

    found: dict[str, list[Any]] = {f"dpo_{kind}": [] for kind in KINDS} | {"rewards": []}
    for pair in range(N):
        inputs = pair_of(given, pair)
        for kind in KINDS:
            itself = trainer(
                model=SimpleNamespace(training=False), ld_alpha=None, precompute_ref_logps=True, loss_types=[kind],
                loss_weights=[1.0],
                f_divergence_type="reverse_kl", label_smoothing=0.0, use_weighting=False, _tp_size=1, _total_train_tokens=0,
            )  # fmt: skip
            found[f"dpo_{kind}"].append(DPOTrainer._compute_loss(itself, outputs, dict(inputs), False).item())
            metrics = itself._metrics["eval"]
        found["rewards"].append([metrics["rewards/chosen"][0], metrics["rewards/rejected"][0]])
    return {name: np.array(value) for name, value in found.items()}


def pair_of(given: dict[str, np.ndarray], pair: int) -> dict[str, torch.Tensor]:
    width = max(given[f"{name}_tokens"].shape[1] for name in ("chosen", "rejected"))

    def both(key: str) -> torch.Tensor:
        rows = [given[f"{name}_{key}"][pair] for name in ("chosen", "rejected")]
        return torch.tensor(np.stack([np.pad(row, (0, width - len(row))) for row in rows]))

    lengths = torch.tensor([given[f"{name}_lengths"][pair] for name in ("chosen", "rejected")])
    there = (torch.arange(width)[None] < lengths[:, None]).long()
    reference = torch.tensor(given["reference"][pair])
    references = {"ref_chosen_logps": reference[:1], "ref_rejected_logps": reference[1:]}
    return {"input_ids": both("tokens"), "attention_mask": there, "completion_mask": both("answer"), **references}


def orpo(model: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    itself = trainer(is_encoder_decoder=False, padding_value=0)
    for name in ("concatenated_forward", "odds_ratio_loss", "get_batch_loss_metrics"):
        setattr(itself, name, MethodType(getattr(ORPOTrainer, name), itself))
    itself.concatenated_inputs, itself.get_batch_logps = ORPOTrainer.concatenated_inputs, ORPOTrainer.get_batch_logps
    losses, rewards = [], []
    for pair in range(N):
        batch: dict[str, Any] = {}
        for name in ("chosen", "rejected"):
            length = int(given[f"{name}_lengths"][pair])
            ids, answer = (torch.tensor(given[f"{name}_{key}"][pair][:length])[None] for key in ("tokens", "answer"))
            batch |= {f"{name}_input_ids": ids, f"{name}_attention_mask": torch.ones_like(ids)}
            batch[f"{name}_labels"] = ids.masked_fill(answer == 0, -100)
        loss, metrics = itself.get_batch_loss_metrics(model, batch)
        losses.append(loss.item())
        rewards.append([metrics["rewards/chosen"], metrics["rewards/rejected"]])
    return {"orpo": np.array(losses), "orpo_rewards": np.array(rewards)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Losses as TRL computes them.")
    parser.add_argument("base", type=Path, help="a folder of a causal language model")
    parser.add_argument("out", type=Path, help="the .npz to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.base, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    given = make()
    with torch.no_grad():
        found = sft(model, given) | dpo(model, given) | orpo(model, given)
    arrays: dict[str, Any] = given | found | {"beta": np.array(BETA)}
    np.savez_compressed(args.out, **arrays)
    for name, value in found.items():
        print(name, np.round(value, 5).tolist())


if __name__ == "__main__":
    main()
