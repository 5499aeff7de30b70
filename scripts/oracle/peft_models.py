"""Small base models for the peft_*.py scripts: weights are seeded, and every matrix has two different sides where it can.

`build` gives a model of transformers, `batches` gives texts for it. Not a script itself.
"""
# pyright: reportMissingImports=false

from typing import Any

import numpy as np
import torch
import transformers

VOCABULARY = 61
BATCHES, B, T, U = 3, 3, 9, 5
"""Batches, rows, places, and places of a decoder behind an encoder."""
PADDING = ((3, 0), (0, 2), (0, 0))
"""Padded places before and after each row."""
QUIET = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0, "attn_implementation": "eager"}
FIELDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": (
        "LlamaForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 44,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 10,
            "max_position_embeddings": 64,
            "tie_word_embeddings": False,
        },
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": VOCABULARY, "n_positions": 48, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 44},
    ),
    "bert": (
        "BertForSequenceClassification",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 44,
            "max_position_embeddings": 48,
            "num_labels": 3,
        },
    ),
    "t5": (
        "T5ForConditionalGeneration",
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "d_kv": 6,
            "d_ff": 44,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_heads": 4,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 16,
            "decoder_start_token_id": 0,
        },
    ),
}
"""Class and config of each model; fields left out have the class's defaults."""


def build(kind: str) -> Any:
    """The model, in evaluation mode, its weights far enough from zero that an adapter shows."""
    name, fields = FIELDS[kind]
    kind_of_model = getattr(transformers, name)
    model = kind_of_model(kind_of_model.config_class(**QUIET, **fields)).eval()
    seed = torch.Generator().manual_seed(len(kind))
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=seed)
            if parameter.ndim > 1:
                parameter.copy_(0.25 * noise)
            else:
                parameter.add_(0.1 * noise)
    return model


def batches(kind: str) -> dict[str, np.ndarray]:
    """Tokens and mask, [BATCHES B T], and what else the model reads; padding is token 0, which is nowhere else.

    An encoder that reads its first token has no row padded on the left.
    """
    rng = np.random.default_rng(5)
    mask = np.ones((BATCHES, B, T), np.int64)
    for row, (before, after) in enumerate(PADDING):
        before, after = (0, before + after) if kind == "bert" else (before, after)
        mask[:, row, :before] = mask[:, row, T - after :] = 0
    arrays = {"tokens": np.where(mask == 1, rng.integers(3, VOCABULARY, mask.shape), 0), "mask": mask}
    if kind in ("llama", "gpt2"):
        arrays["positions"] = np.maximum(mask.cumsum(-1) - 1, 0)
    if kind == "bert":
        arrays["token_types"] = rng.integers(0, 2, mask.shape)
    if kind == "t5":
        arrays["decoder_tokens"] = rng.integers(3, VOCABULARY, (BATCHES, B, U))
        arrays["decoder_tokens"][..., 0] = 0
    return arrays


def prompts(kind: str) -> dict[str, np.ndarray]:
    """What to go on from: rows of equal length, and rows padded on the left (on the right for an encoder's input)."""
    arrays = batches(kind)
    mask = np.ones((B, T), np.int64)
    for row, padded in enumerate((4, 0, 2)):
        mask[row, slice(T - padded, T) if kind == "t5" else slice(0, padded)] = 0
    tokens = np.random.default_rng(6).integers(3, VOCABULARY, (B, T))
    return {"full": arrays["tokens"][:, 2], "padded": np.where(mask == 1, tokens, 0), "padded_mask": mask}


NAMES = {
    "tokens": "input_ids",
    "mask": "attention_mask",
    "positions": "position_ids",
    "token_types": "token_type_ids",
    "decoder_tokens": "decoder_input_ids",
}


@torch.no_grad()
def logits(model: Any, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Logits of each batch."""
    found = []
    for number in range(len(arrays["tokens"])):
        given = {theirs: torch.from_numpy(arrays[ours][number]) for ours, theirs in NAMES.items() if ours in arrays}
        found.append(model(**given).logits.numpy())
    return np.stack(found)


def int32(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: array.astype(np.int32) if array.dtype == np.int64 else array for name, array in arrays.items()}
