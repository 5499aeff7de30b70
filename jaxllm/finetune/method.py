"""What every fine-tuning method offers.

A method says which parameters learn, adds parameters of its own to the modules that it changes, and computes with them. Its
parameters stand in the tree of the model's, beside those of the module: `layers/attention/query/lora/a` beside
`layers/attention/query/kernel`. So they are stacked over layers, split over a mesh and passed to a scan like any others, and a
method is data: the model knows nothing of it.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax
from flax import linen as nn
from jax import Array

from jaxllm.models import ModelConfig

Params = Any
"""Nested dicts of arrays."""


class Method(Protocol):
    """A way to fit a pretrained model."""

    leaf: ClassVar[str | None]
    """Name, in a module's parameters, of those that the method adds; None where it adds none."""

    @property
    def dropout(self) -> float:
        """Probability with which the method drops values of its own while it learns."""
        ...

    def check(self, model: ModelConfig) -> None:
        """Refuse a model that the method cannot work with."""
        ...

    def learns(self, path: str) -> bool:
        """Whether the parameter at this path learns."""
        ...

    def init(self, key: Array, params: Params, axes: Params) -> tuple[Params, Params]:
        """The method's own parameters for a model's, and their logical axes: nested dicts that `overlay` puts into the model's.

        Args:
          axes: the model's parameters' logical axes, an `Axes` in place of each array.
        """
        ...

    def run(self, module: nn.Module, own: Params, call: Callable, inputs: tuple, key: Array | None) -> Any:
        """What a module gives that has parameters of the method.

        Args:
          own: those parameters.
          call: what the module computes by itself.
          key: for dropout; None where nothing is dropped.
        """
        ...

    def merge(self, params: Params) -> Params | None:
        """The model's parameters with the method's worked into them; None where that cannot be."""
        ...


def is_array(node: Any) -> bool:
    return isinstance(node, jax.Array | jax.ShapeDtypeStruct)
