"""Writes tests/interchange/golden/<name>.npz: what transformers computes with a small model of each class.

    python scripts/oracle/families.py [NAME ...]        # a Python with torch and transformers; jaxllm is not needed

Weights are not stored: each is a function of its published name (tests/interchange/seeded.py), which the tests know, too.
A file holds the config and the names and shapes of the tensors, as `save_pretrained` writes them; a batch with a row padded on
the left, one on the right and one without padding; logits, hidden states, attention maps, the loss and the gradient of
every parameter; and what greedy and beam search make of prompts padded on the left. All in float32, with eager attention.

A new class is a row of `CASES`. The name of a case is the class, with a dot and a word where a class has several.
"""
# pyright: reportMissingImports=false

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.interchange.seeded import seeded  # noqa: E402

GOLDEN = ROOT / "tests" / "interchange" / "golden"
T = 12
"""Tokens in a row."""
PADDING = ((4, 0), (0, 3), (0, 0))
"""Padded places before and after each row."""
NEW_TOKENS = 6

LLAMA = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
NEOX = {name: value for name, value in LLAMA.items() if name != "num_key_value_heads"}
CASES: dict[str, dict] = {
    "GPT2LMHeadModel": {"vocab_size": 61, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "LlamaForCausalLM": {**LLAMA, "rms_norm_eps": 1e-5, "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}},
    "LlamaForCausalLM.llama3": {
        **LLAMA,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 5000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "LlamaForCausalLM.linear": {
        **LLAMA,
        "attention_bias": True,
        "mlp_bias": True,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0},
    },
    "LlamaForCausalLM.yarn": {
        **LLAMA,
        "head_dim": 16,
        "num_key_value_heads": 1,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 100.0,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "GPTNeoXForCausalLM": {**NEOX, "num_attention_heads": 2, "rope_parameters": {"partial_rotary_factor": 0.25}},
    "GPTNeoXForCausalLM.sequential": {
        **NEOX,
        "use_parallel_residual": False,
        "attention_bias": False,
        "hidden_act": "relu",
        "tie_word_embeddings": True,
        "rope_parameters": {"partial_rotary_factor": 1.0, "rope_theta": 500.0},
    },
    "MistralForCausalLM": {**LLAMA, "head_dim": 16, "sliding_window": 5},
    "Qwen2ForCausalLM": {
        **LLAMA,
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 1,
        "tie_word_embeddings": True,
    },
    "Qwen3ForCausalLM": {**LLAMA, "head_dim": 16, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "Gemma2ForCausalLM": {
        **LLAMA,
        "head_dim": 16,
        "sliding_window": 5,
        "query_pre_attn_scalar": 24,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "Gemma3ForCausalLM": {
        **LLAMA,
        "head_dim": 16,
        "attention_bias": True,
        "sliding_window": 5,
        "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 24,
        "final_logit_softcapping": 3.0,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
    },
    "PhiForCausalLM": {**LLAMA, "rope_parameters": {"partial_rotary_factor": 0.5}},
    "Phi3ForCausalLM": {**LLAMA, "sliding_window": 5},
    "MixtralForCausalLM": {
        **LLAMA,
        "sliding_window": 5,
        "num_local_experts": 4,
        "router_aux_loss_coef": 0.5,
    },
    "Qwen3MoeForCausalLM": {
        **LLAMA,
        "head_dim": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "router_aux_loss_coef": 0.5,
    },
    "OlmoForCausalLM": {**LLAMA, "clip_qkv": 0.75, "tie_word_embeddings": True},
    "Olmo2ForCausalLM": {**LLAMA, "attention_bias": True, "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}},
}
"""Fields of each class's config; those left out have the class's defaults."""
QUIET = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0, "attn_implementation": "eager"}


def build(
    name: str, fields: dict, more: dict[str, tuple[int, ...]] | None = None
) -> tuple[torch.nn.Module, dict, dict[str, list[int]]]:
    """The model with seeded weights, its config.json, and the shape of each tensor, as transformers saves them.

    Args:
      more: tensors that transformers saves with a trained model only, and their shapes.
    """
    kind = getattr(transformers, name.split(".")[0])
    with tempfile.TemporaryDirectory() as folder:
        kind(kind.config_class(**QUIET | fields)).save_pretrained(folder)
        shapes = {tensor: value.shape for tensor, value in stored(folder).items()} | (more or {})
        weights = {tensor: seeded(tensor, shape) for tensor, shape in shapes.items()}
        save_file(weights, f"{folder}/model.safetensors", {"format": "pt"})
        model = kind.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
        config = json.loads(Path(folder, "config.json").read_text())
    return model, config, {tensor: list(value.shape) for tensor, value in weights.items()}


def stored(folder: str) -> dict[str, np.ndarray]:
    """The floating-point tensors of a saved model."""
    tensors = load_file(f"{folder}/model.safetensors")
    return {name: value for name, value in sorted(tensors.items()) if value.dtype.kind == "f"}


def gradients(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """The gradients under the names that tensors have in a saved model: they are saved in place of the weights."""
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for weight in model.parameters():
            weight.copy_(torch.zeros_like(weight) if weight.grad is None else weight.grad)
        model.save_pretrained(folder)
        return {f"gradient/{name}": value for name, value in stored(folder).items()}


def batch(vocab_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and attention mask; padded places hold token 0."""
    rng = np.random.default_rng(0)
    tokens, mask = rng.integers(1, vocab_size, (len(PADDING), T)), np.ones((len(PADDING), T), np.int64)
    for row, (before, after) in enumerate(PADDING):
        mask[row, :before] = mask[row, T - after :] = 0
    return torch.from_numpy(tokens * mask), torch.from_numpy(mask)


def forward(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Everything one pass gives; the model is of no use afterwards. Padded places are no targets and predict none."""
    tokens, mask = batch(model.config.vocab_size)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    first = (mask.cumsum(1) == 1) & (mask == 1)
    labels = tokens.masked_fill((mask == 0) | first, -100)
    out = model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=positions,
        labels=labels,
        output_hidden_states=True,
        output_attentions=True,
        use_cache=False,
        **({"output_router_logits": True} if hasattr(model.config, "router_aux_loss_coef") else {}),
    )
    out.loss.backward()
    return {
        "tokens": tokens.numpy().astype(np.int32),
        "mask": mask.numpy().astype(np.int32),
        "logits": out.logits.detach().numpy(),
        "hidden": torch.stack(out.hidden_states).detach().numpy(),
        "attention": torch.stack(out.attentions).detach().numpy(),
        "loss": out.loss.detach().numpy(),
        **({"load_balance": out.aux_loss.detach().numpy()} if "aux_loss" in out else {}),
        **gradients(model),
    }


def search(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Ids that greedy and beam search add to two prompts, the first padded on the left."""
    tokens, mask = (x[[0, 2], :7] for x in batch(model.config.vocab_size))
    more = {"attention_mask": mask, "max_new_tokens": NEW_TOKENS, "do_sample": False}
    with torch.no_grad():
        greedy = model.generate(tokens, **more)
        beam = model.generate(tokens, num_beams=4, early_stopping=False, length_penalty=1.0, **more)
    prompt = {"prompt": tokens, "prompt_mask": mask, "greedy": greedy[:, 7:], "beam": beam[:, 7:]}
    return {name: ids.numpy().astype(np.int32) for name, ids in prompt.items()}


def write(name: str) -> None:
    model, config, shapes = build(name, CASES[name])
    save(name, config, shapes, search(model) | forward(model))


def save(name: str, config: Any, shapes: Any, arrays: dict[str, Any]) -> None:
    """Writes a golden file."""
    path = GOLDEN / f"{name}.npz"
    texts = {"config": np.array(json.dumps(config)), "shapes": np.array(json.dumps(shapes))}
    np.savez_compressed(path, allow_pickle=False, **texts, **arrays)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e3:.0f} kB, loss {arrays['loss']:.4f}")


def main(kind: str, cases: Iterable[str], write: Callable[[str], None]) -> None:
    """The command line of this file, and of those beside it for other kinds of models."""
    parser = argparse.ArgumentParser(description=f"Write golden files of {kind} from transformers.")
    parser.add_argument("names", nargs="*", default=list(cases), help="cases to write; by default all")
    GOLDEN.mkdir(exist_ok=True)
    for name in parser.parse_args().names:
        write(name)


if __name__ == "__main__":
    main("decoders", CASES, write)
