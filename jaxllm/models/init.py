"""Any of the models: made from its config, its parameters made or only described."""

import functools
from typing import Any

import jax
from jax import Array

from jaxllm.models.config import TransformerConfig
from jaxllm.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from jaxllm.models.transformer import Transformer
from jaxllm.models.vision import VisionConfig, VisionTransformer

Model = Transformer | EncoderDecoder | VisionTransformer
ModelConfig = TransformerConfig | EncoderDecoderConfig | VisionConfig


def make_model(config: ModelConfig) -> Model:
    """The model that a config describes."""
    if isinstance(config, EncoderDecoderConfig):
        return EncoderDecoder(config)
    return VisionTransformer(config) if isinstance(config, VisionConfig) else Transformer(config)


def init_params(model: Model, key: Array) -> Any:
    """Initial parameters, as plain nested dicts with block parameters stacked over layers."""
    return model.init(key, *model.example_inputs())["params"]


def abstract_params(model: Model) -> tuple[Any, Any]:
    """Shapes and types of the parameters, and their logical axes, without computing anything, nor starting a device."""
    trace: Any = _described if _hashable(model) else _described.__wrapped__
    variables = trace(model, jax.sharding.get_abstract_mesh())
    return tuple(jax.tree.map(lambda leaf: leaf, variables[name]) for name in ("params", "axes"))  # type: ignore[return-value]


def _hashable(model: Model) -> bool:
    """Whether it is described by frozen fields alone; one may have a list where a tuple is meant."""
    try:
        hash(model)
    except TypeError:
        return False
    return True


@functools.lru_cache(maxsize=64)
def _described(model: Model, mesh: Any) -> Any:
    """The variables; a run asks for those of its model several times, and each time would trace it anew."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), *model.example_inputs()))
