"""The battery's rows for models with encoder and decoder; golden files by scripts/oracle/encoder_decoders.py."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from jaxllm.inference import encode_sources
from tests.interchange.battery import Loaded, golden, load, write_published

ROWS = (
    "T5ForConditionalGeneration",
    "T5ForConditionalGeneration.v1_1",
    "BartForConditionalGeneration",
    "MarianMTModel",
    "MarianMTModel.separate",
)
NEW_TOKENS = 8
"""What the searches write at most."""
IGNORED = -100
"""Label of a place where nothing is written."""


def compute(name: str, folder: Path) -> Loaded:
    """One compiled program for everything that is compared."""
    write_published(folder, name)
    published, model, params = load(folder)
    wanted = golden(name)
    tokens, mask = jnp.asarray(wanted["tokens"]), jnp.asarray(wanted["mask"])
    labels = wanted["labels"]
    shifted = np.where(labels == IGNORED, wanted["config"]["pad_token_id"], labels)[:, :-1]
    decoder_tokens = jnp.asarray(np.pad(shifted, ((0, 0), (1, 0)), constant_values=model.config.start_id))
    capture = ("hidden", "attention", "cross_attention")

    def loss(params: Any) -> tuple[jax.Array, Any]:
        output = model.apply({"params": params}, tokens, decoder_tokens, segment_ids=mask, capture=capture)
        scores = jax.nn.log_softmax(output.logits)
        scores = jnp.take_along_axis(scores, jnp.maximum(labels, 0)[:, :, None], axis=-1)[..., 0]
        return -jnp.sum(scores * (labels != IGNORED)) / jnp.sum(labels != IGNORED), output

    (value, output), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return Loaded(wanted, published, model, params, output, value, gradient)


def search_inputs(name: str, folder: Path) -> dict[str, Any]:
    """What `stream_tokens` and `beam_search` are called with: the model that the searches of the golden file were made with."""
    wanted, tensors = golden(name), write_published(folder, name)
    tensors[str(wanted["turned"])] *= -1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    _, model, params = load(folder)
    rows = zip(wanted["source"], wanted["source_mask"], strict=True)
    sources = [[int(token) for token, real in zip(*row, strict=True) if real] for row in rows]
    prompts = [[model.config.start_id] for _ in sources]
    return {"model": model, "params": params, "prompts": prompts, "memory": encode_sources(model, params, sources)}
