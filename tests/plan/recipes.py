"""A small recipe to plan for."""

from typing import Any

from jaxllm.data import DataConfig
from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe


def small(**changes: Any) -> Recipe:
    """A Llama-like decoder, with these fields of the recipe, or of its `model`, changed."""
    model: dict[str, Any] = dict(
        vocab_size=1024,
        context_len=256,
        num_layers=4,
        embed_dim=256,
        num_heads=4,
        num_kv_heads=2,
        head_dim=128,
        ffw_dim=512,
        norm="rms_norm",
        position="rotary",
        activation="swiglu",
        bias=False,
        tie_embeddings=False,
        compute_dtype="bfloat16",
        remat="block",
    )
    model |= changes.pop("model", {})
    fields: dict[str, Any] = dict(name="small", steps=100, batch_size=16, data=DataConfig(dataset="none", seq_len=256))
    return Recipe(**fields | changes, model=TransformerConfig(**model))
