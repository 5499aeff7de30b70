"""A model whose modules compute with a method's parameters where they have any. It is the same model in every other way: it is
called, sharded, trained, and generates as before."""

import dataclasses
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from flax import linen as nn
from jax import Array

from jaxllm.finetune.method import Method, check_names
from jaxllm.finetune.soft import Soft
from jaxllm.models import (
    Cache,
    EncoderDecoder,
    Model,
    ModelConfig,
    Transformer,
    VisionTransformer,
    abstract_params,
    init_params,
    overlay,
    paths,
)
from jaxllm.models.block import Block


class _Adapted:
    """What the adapted models add to theirs."""

    method: Method
    config: Any

    @nn.nowrap
    def init(self, rngs: Any, *inputs: Any, **arguments: Any) -> Any:
        """As the model's, with the method's parameters among the others."""
        variables = super().init(rngs, *inputs, **arguments)  # type: ignore[misc]
        params, axes = begin(self.method, self.config, rngs, variables["params"], variables["axes"])
        return {"params": overlay(variables["params"], params), "axes": overlay(variables["axes"], axes)}

    @nn.nowrap
    def apply(self, variables: Any, *inputs: Any, **arguments: Any) -> Any:
        variables = {**variables, "params": self.prepare(variables["params"])}
        with nn.intercept_methods(_Interceptor(self.method)):
            return super().apply(variables, *inputs, **arguments)  # type: ignore[misc]

    @nn.nowrap
    def prepare(self, params: Any) -> Any:
        """The parameters with what no module computes with worked in, as the output matrix."""
        return self.method.prepare(params)

    @nn.nowrap
    def begin_cache(self, params: Any, batch_size: int, cache_len: int, *, stacked: bool = True) -> Cache:
        """As the model's; a method may have put tokens into it that are there before the text."""
        method = self.method
        if isinstance(method, Soft) and method.slots(self.config):
            return method.begin_cache(self.config, params, batch_size, cache_len, stacked=stacked)
        return super().begin_cache(params, batch_size, cache_len, stacked=stacked)  # type: ignore[misc]


class AdaptedTransformer(_Adapted, Transformer):
    """A `Transformer` with a method."""

    method: Any

    @property
    def context_len(self) -> int:
        """Longest text in tokens, behind those that a method puts before it."""
        return self.config.context_len - _virtual(self.method, "decoder", "encoder")


class AdaptedEncoderDecoder(_Adapted, EncoderDecoder):
    """An `EncoderDecoder` with a method."""

    method: Any

    @property
    def context_len(self) -> int:
        """Longest text in tokens that it writes, behind those that a method puts before it."""
        return self.config.context_len - _virtual(self.method, "decoder")

    @property
    def source_len(self) -> int:
        """Longest text in tokens that it reads, likewise."""
        return self.config.encoder.context_len - _virtual(self.method, "encoder")


class AdaptedVisionTransformer(_Adapted, VisionTransformer):
    """A `VisionTransformer` with a method."""

    method: Any


KINDS: dict[type, type] = {
    Transformer: AdaptedTransformer,
    EncoderDecoder: AdaptedEncoderDecoder,
    VisionTransformer: AdaptedVisionTransformer,
}


def adapt(model: Model, method: Method) -> Model:
    """The model with a method's parameters in it, and computing with them.

        model = adapt(Transformer(config), LoRA(rank=8))
        params = begin_params(model, key, given=params)
        model.apply({"params": params}, tokens)

    Raises:
      ValueError: the method cannot work with this model.
    """
    method.check(model.config)
    check_names(method, lambda: paths(abstract_params(model)[0]))
    return model if method.leaf is None else KINDS[type(model)](model.config, method=method)


def begin_params(model: Model, key: Array, given: Any = None) -> Any:
    """Initial parameters of a model, adapted or not.

    Args:
      given: parameters to begin with, the method's perhaps among them; those that are missing are initialized.
    """
    if unadapted(model) is model and given is None:
        return init_params(model, key)
    variables: Any = unadapted(model).init(key, *model.example_inputs())
    params = variables["params"] if given is None else overlay(variables["params"], given)
    if unadapted(model) is model:
        return params
    fresh = begin(model.method, model.config, key, params, variables["axes"])[0]  # type: ignore[union-attr]
    return overlay(overlay(params, fresh), given or {})


def begin(method: Method, config: ModelConfig, key: Array, params: Any, axes: Any) -> tuple[Any, Any]:
    """A method's own parameters for those of a model, and their logical axes."""
    return method.init(jax.random.fold_in(key, 1), params, axes, config)


def unadapted(model: Model) -> Model:
    """The model as it was before `adapt`."""
    plain = {adapted: kind for kind, adapted in KINDS.items()}
    return plain[type(model)](model.config) if type(model) in plain else model


def packs(method: Method, config: ModelConfig) -> bool:
    """Whether several texts may stand in one row with this method; otherwise each needs a row of its own."""
    return not isinstance(method, Soft) or method.packs(config)


def _virtual(method: Method, *sides: str) -> int:
    """Tokens that a method puts before the text of one of these stacks."""
    return method.tokens if isinstance(method, Soft) and method.side in sides else 0


@dataclasses.dataclass
class _Interceptor:
    """Stands between a module and its callers while the model is traced; knows the dropout key of the block it is in."""

    method: Method
    key: Array | None = None

    def __call__(self, call: Callable, inputs: tuple, arguments: dict, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__" or module.is_initializing():
            return call(*inputs, **arguments)
        if isinstance(module, Block):
            outer, self.key = self.key, inputs[1].dropout_key
            try:
                return call(*inputs, **arguments)
            finally:
                self.key = outer
        params = module.variables.get("params", {})
        if self.method.leaf not in params:
            return call(*inputs, **arguments)
        place = zlib.crc32("/".join(module.path).encode())
        key = None if self.key is None else jax.random.fold_in(self.key, place)
        return self.method.run(module, params[self.method.leaf], partial(call, **arguments), inputs, key)
