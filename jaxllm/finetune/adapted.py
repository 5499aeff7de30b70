"""A model whose modules compute with a method's parameters where they have any. It is the same model in every other way: it is
called, sharded, trained, and generates as before."""

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from jax import Array

from jaxllm.finetune.method import Method
from jaxllm.models import EncoderDecoder, Model, Transformer, VisionTransformer, init_params, overlay
from jaxllm.models.block import Block


class _Adapted:
    """What the adapted models add to theirs."""

    method: Method

    @nn.nowrap
    def init(self, rngs: Any, *inputs: Any, **arguments: Any) -> Any:
        """As the model's, with the method's parameters among the others."""
        variables = super().init(rngs, *inputs, **arguments)  # type: ignore[misc]
        params, axes = self.method.init(jax.random.fold_in(rngs, 1), variables["params"], variables["axes"])
        return {"params": overlay(variables["params"], params), "axes": overlay(variables["axes"], axes)}

    @nn.nowrap
    def apply(self, variables: Any, *inputs: Any, **arguments: Any) -> Any:
        with nn.intercept_methods(_Interceptor(self.method)):
            return super().apply(variables, *inputs, **arguments)  # type: ignore[misc]


class AdaptedTransformer(_Adapted, Transformer):
    """A `Transformer` with a method."""

    method: Any


class AdaptedEncoderDecoder(_Adapted, EncoderDecoder):
    """An `EncoderDecoder` with a method."""

    method: Any


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
        params = overlay(params, LoRA(rank=8).init(key, params, axes)[0])
        model.apply({"params": params}, tokens)

    Raises:
      ValueError: the method cannot work with this model.
    """
    method.check(model.config)
    return model if method.leaf is None else KINDS[type(model)](model.config, method=method)


def begin_params(model: Model, key: Array, given: Any = None) -> Any:
    """Initial parameters of a model, adapted or not.

    Args:
      given: parameters to begin with, of the model without its method; those that are missing are initialized.
    """
    if unadapted(model) is model and given is None:
        return init_params(model, key)
    variables: Any = unadapted(model).init(key, *model.example_inputs())
    params = variables["params"] if given is None else overlay(variables["params"], given)
    if unadapted(model) is model:
        return params
    return overlay(params, model.method.init(jax.random.fold_in(key, 1), params, variables["axes"])[0])  # type: ignore[union-attr]


def unadapted(model: Model) -> Model:
    """The model as it was before `adapt`."""
    kinds = {adapted: kind for kind, adapted in KINDS.items()}
    return kinds[type(model)](model.config) if type(model) in kinds else model


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
        own = module.variables.get("params", {}).get(self.method.leaf)
        if own is None:
            return call(*inputs, **arguments)
        place = zlib.crc32("/".join(module.path).encode())
        key = None if self.key is None else jax.random.fold_in(self.key, place)
        return self.method.run(module, own, lambda *given: call(*given, **arguments), inputs, key)
