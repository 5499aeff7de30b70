"""Writes what peft makes of small models: one folder a case, `<folder>/<method>--<model>`.

    python scripts/oracle/peft_methods.py FOLDER [CASE ...]        # a Python with torch, transformers and peft

A case holds `base/` and `adapter/` as transformers and peft save them, `merged/` where the adapter can be merged (as
`merge_and_unload` leaves the model), and `expected.npz`: the batches of peft_models.py, `logits` of the adapter read back from
its folder, `base_logits` without it, `merged_logits`; for decoders under soft prompts and under LoRA also ids that greedy
search and a beam search of 4 write behind prompts of equal length (`full`) and padded ones (`padded`).

Every trainable number of an adapter is moved at random, so that none is the identity. Virtual tokens have logits, too, where
the model gives them. What peft does with positions is in the arrays: where it drops those given to it, `positions` is missing.
"""
# pyright: reportMissingImports=false

import argparse
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from peft_models import batches, build, int32, logits, prompts

NEW_TOKENS = 7
TASKS = {"llama": "CAUSAL_LM", "gpt2": "CAUSAL_LM", "bert": "SEQ_CLS", "t5": "SEQ_2_SEQ_LM"}
EVERY = tuple(TASKS)
EMBEDDINGS = {"llama": "embed_tokens", "gpt2": "wte", "bert": "word_embeddings"}
QUERIES = {"llama": ["q_proj"], "gpt2": ["c_attn"], "bert": ["query"], "t5": ["q"]}
WIDE = {"llama": ["k_proj", "down_proj"], "gpt2": ["c_attn", "mlp.c_proj"], "bert": ["key", "output.dense"], "t5": ["o", "wo"]}
SAVED = {
    "llama": ["model.norm", "lm_head"],
    "gpt2": ["ln_f"],
    "bert": ["pooler"],
    "t5": ["final_layer_norm"],
}
PATTERNS = {
    "llama": {"layers.1.mlp.up_proj": 5, "k_proj": 2},
    "gpt2": {r"h\.1\.mlp\.c_fc": 5, "c_attn": 2},
    "bert": {r"layer\.1\.intermediate\.dense": 5, "key": 2},
    "t5": {r"decoder\.block\.1\..*\.wi": 5, "k": 2},
}
LORA: dict[str, Any] = {"r": 3, "lora_alpha": 7}
SOFT: dict[str, Any] = {"num_virtual_tokens": 3}


def lora(**fields: Any) -> Callable[[str], peft.PeftConfig]:
    """A LoRA config for a model; a field may be a function of the model's kind."""
    return lambda kind: peft.LoraConfig(
        task_type=TASKS[kind], **{**LORA, **{key: value(kind) if callable(value) else value for key, value in fields.items()}}
    )


def soft(kind_of_config: type, **fields: Any) -> Callable[[str], peft.PeftConfig]:
    """T5's keys are narrower than its width, which peft does not look at for a prefix."""

    def make(kind: str) -> peft.PeftConfig:
        narrow = {"token_dim": 24} if kind == "t5" and kind_of_config is peft.PrefixTuningConfig else {}
        return kind_of_config(task_type=TASKS[kind], **SOFT, **narrow, **fields)

    return make


def adalora(kind: str) -> peft.PeftConfig:
    fields = {"tinit": 1, "tfinal": 2, "total_step": 8, "lora_alpha": 7, "target_modules": WIDE[kind]}
    return peft.AdaLoraConfig(task_type=TASKS[kind], init_r=4, target_r=2, **fields)


CASES: dict[str, tuple[Callable[[str], peft.PeftConfig], tuple[str, ...]]] = {
    "lora": (lora(), EVERY),
    "lora_dropout": (lora(lora_dropout=0.5, init_lora_weights="gaussian"), ("llama",)),
    "lora_patterns": (
        lora(
            target_modules="all-linear",
            rank_pattern=PATTERNS.__getitem__,
            alpha_pattern=lambda kind: dict.fromkeys(PATTERNS[kind], 11),
            use_rslora=True,
        ),
        EVERY,
    ),
    "lora_layers": (
        lora(
            target_modules=lambda kind: [*WIDE[kind], *QUERIES[kind]],
            layers_to_transform=[1],
            exclude_modules=QUERIES.__getitem__,
        ),
        ("llama", "gpt2", "bert"),
    ),
    "lora_regex": (lora(target_modules=r".*\.[01]\..*(v_proj|c_fc|value|EncDecAttention\.v)"), EVERY),
    "lora_dora": (lora(target_modules="all-linear", use_dora=True), EVERY),
    "lora_pissa": (lora(target_modules=WIDE.__getitem__, init_lora_weights="pissa"), EVERY),
    "lora_embedding": (lora(target_modules=lambda kind: [EMBEDDINGS[kind], *QUERIES[kind]]), tuple(EMBEDDINGS)),
    "lora_embedding_dora": (lora(target_modules=lambda kind: [EMBEDDINGS[kind]], use_dora=True), ("llama",)),
    "lora_saved": (lora(modules_to_save=lambda kind: list(SAVED[kind])), EVERY),
    "lora_bias_all": (lora(bias="all"), ("gpt2", "bert")),
    "lora_bias_only": (lora(bias="lora_only"), ("gpt2", "bert")),
    "lora_lora_bias": (lora(lora_bias=True), ("gpt2", "bert")),
    "adalora": (adalora, EVERY),
    "adalora_pruned": (adalora, EVERY),
    "ia3": (lambda kind: peft.IA3Config(task_type=TASKS[kind]), EVERY),
    "vera": (lambda kind: peft.VeraConfig(task_type=TASKS[kind], r=5, target_modules=WIDE[kind]), EVERY),
    "vera_unsaved": (lambda kind: peft.VeraConfig(task_type=TASKS[kind], r=5, save_projection=False), ("llama",)),
    "prefix": (soft(peft.PrefixTuningConfig), EVERY),
    "prefix_projection": (soft(peft.PrefixTuningConfig, prefix_projection=True, encoder_hidden_size=7), EVERY),
    "prompt": (soft(peft.PromptTuningConfig), EVERY),
    "prompt_sampled": (soft(peft.PromptTuningConfig, prompt_tuning_init="SAMPLE_VOCAB"), ("llama",)),
    "ptuning_mlp": (soft(peft.PromptEncoderConfig, encoder_hidden_size=7), EVERY),
    "ptuning_lstm": (
        soft(peft.PromptEncoderConfig, encoder_hidden_size=7, encoder_reparameterization_type="LSTM"),
        EVERY,
    ),
}
"""The config for a model, and the models."""
SOFT_METHODS = ("prefix", "prompt", "ptuning")
"""How the names of methods begin that add virtual tokens and cannot be merged."""


def perturb(model: Any, seed: int) -> None:
    """Moves every trainable number; more where numbers are large."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.requires_grad:
                size = 0.15 + 0.1 * parameter.abs().mean()
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def prune(model: Any) -> None:
    """Steps of AdaLoRA's allocation with random gradients, up to and beyond its last."""
    generator = torch.Generator().manual_seed(0)
    for step in range(8):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        model.base_model.update_and_allocate(step)


def searched(model: Any, kind: str) -> dict[str, np.ndarray]:
    """Ids behind the prompts, without them, with the cache."""
    given, found = prompts(kind), {}
    for name in ("full", "padded"):
        mask = given["padded_mask"] if name == "padded" else np.ones_like(given["full"])
        inputs = {"input_ids": torch.from_numpy(given[name]), "attention_mask": torch.from_numpy(mask)}
        start = 1 if kind == "t5" else given[name].shape[1]
        for search, beams in (("greedy", 1), ("beam", 4)):
            ids = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, num_beams=beams, use_cache=True)
            found[f"{name}_{search}"] = ids[:, start:].numpy()
    return {**given, **found}


def write(folder: Path, method: str, kind: str) -> str:
    """The case; in words what it shows."""
    shutil.rmtree(folder, ignore_errors=True)
    make = CASES[method][0]
    build(kind).save_pretrained(folder / "base")
    kind_of_model = type(build(kind))

    def base() -> Any:
        return kind_of_model.from_pretrained(folder / "base", attn_implementation="eager").eval()

    torch.manual_seed(0)
    trained: Any = peft.get_peft_model(base(), make(kind)).eval()
    perturb(trained, seed=len(method))
    if method == "adalora_pruned":
        prune(trained)
    trained.save_pretrained(str(folder / "adapter"))
    model: Any = peft.PeftModel.from_pretrained(base(), str(folder / "adapter")).eval()
    arrays = batches(kind)
    if method.startswith(("prompt", "ptuning")):
        arrays.pop("positions", None)  # peft drops them: place n of a batch is at 3 + n
    expected = {**arrays, "logits": logits(model, arrays)}
    trained_gap = abs(logits(trained, arrays) - expected["logits"]).max()
    assert trained_gap < 1e-5, trained_gap
    expected["base_logits"] = logits(base(), arrays)
    is_soft = method.startswith(SOFT_METHODS)
    if kind != "bert" and (is_soft or method == "lora"):
        expected |= searched(model, kind)
    seen = expected["logits"][..., -expected["base_logits"].shape[-2] :, :] if kind != "bert" else expected["logits"]
    words = f"{method}--{kind}: moved by {abs(seen - expected['base_logits']).max():.2f}"
    if not is_soft:
        merged = model.merge_and_unload()
        merged.save_pretrained(folder / "merged")
        expected["merged_logits"] = logits(merged, arrays)
        words += f", merged off by {abs(expected['merged_logits'] - expected['logits']).max():.1e}"
    np.savez(folder / "expected.npz", **int32(expected))
    return words


def main() -> None:
    parser = argparse.ArgumentParser(description="Adapters, and what peft makes of them.")
    parser.add_argument("folder", type=Path, help="where the cases go, a folder each")
    parser.add_argument("cases", nargs="*", help="names such as lora--llama (default: all)")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    names = [f"{method}--{kind}" for method, (_, kinds) in CASES.items() for kind in kinds]
    for name in args.cases or names:
        if name not in names:
            parser.error(f"no case {name}: there are {', '.join(names)}")
        print(write(args.folder / name, *name.split("--")), flush=True)


if __name__ == "__main__":
    main()
