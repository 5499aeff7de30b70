"""What every published class must show: a class is a row of `ROWS`, with its golden file by scripts/oracle/families.py."""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from jaxllm.interchange import Published, load_params, open_published
from jaxllm.models import Model, abstract_params, make_model, router_losses
from tests.interchange.seeded import seeded

GOLDEN = Path(__file__).parent / "golden"
ROWS = (
    "GPT2LMHeadModel",
    "LlamaForCausalLM",
    "LlamaForCausalLM.llama3",
    "LlamaForCausalLM.linear",
    "LlamaForCausalLM.yarn",
    "GPTNeoXForCausalLM",
    "GPTNeoXForCausalLM.sequential",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "PhiForCausalLM",
    "Phi3ForCausalLM",
    "MixtralForCausalLM",
    "Qwen3MoeForCausalLM",
    "OlmoForCausalLM",
    "Olmo2ForCausalLM",
)
"""Decoders: names of golden files."""


class Loaded(NamedTuple):
    """One of our models with the weights of a golden file, and what it computes for the golden batch."""

    golden: dict[str, Any]
    published: Published
    model: Any
    params: Any
    output: Any
    loss: jax.Array
    gradient: Any


@cache
def golden(name: str) -> dict[str, Any]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file}
    return arrays | {key: json.loads(str(arrays[key])) for key in ("config", "shapes")}


def write_published(folder: Path, name: str, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """A folder as transformers writes it, with the weights that the golden file was made with; returns those."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(golden(name)["config"]))
    tensors = {key: seeded(key, tuple(shape)).astype(dtype) for key, shape in golden(name)["shapes"].items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return tensors


def load(folder: Path, dtype: str | None = None) -> tuple[Published, Model, Any]:
    published = open_published(folder)
    model = make_model(published.config)
    abstract, _ = abstract_params(model)
    return published, model, load_params(published.tensors, published.family, published.config, abstract, dtype=dtype)


def load_balance(output: Any, config: Any, mask: jax.Array) -> jax.Array:
    return router_losses(output.router_logits, mask.astype(jnp.float32), config.experts)[0]


def compute(name: str, folder: Path) -> Loaded:
    """One compiled program for everything that is compared."""
    write_published(folder, name)
    published, model, params = load(folder)
    wanted = golden(name)
    tokens, mask = jnp.asarray(wanted["tokens"]), jnp.asarray(wanted["mask"])
    positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)

    def loss(params: Any) -> tuple[jax.Array, Any]:
        output = model.apply({"params": params}, tokens, positions=positions, segment_ids=mask, capture=("hidden", "attention"))
        scores = jax.nn.log_softmax(output.logits[:, :-1])
        scores = jnp.take_along_axis(scores, tokens[:, 1:, None], axis=-1)[..., 0]
        weights = (mask[:, 1:] * mask[:, :-1]).astype(jnp.float32)
        value = -jnp.sum(scores * weights) / jnp.sum(weights)
        if model.config.experts is not None:
            value += model.config.experts.load_balance * load_balance(output, model.config, mask)
        return value, output

    (value, output), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return Loaded(wanted, published, model, params, output, value, gradient)
