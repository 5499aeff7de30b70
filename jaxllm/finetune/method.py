"""What every fine-tuning method offers.

A method says which parameters learn, adds parameters of its own to the modules that it changes, and computes with them. Its
parameters stand in the tree of the model's, beside those of the module: `layers/attention/query/lora/a` beside
`layers/attention/query/kernel`. So they are stacked over layers, split over a mesh and passed to a scan like any others, and a
method is data: the model knows nothing of it.

A method's parameters that do not learn (a scale, a shared random matrix) are made again by `init`, from the same key and the
same base parameters, where a run goes on or is loaded: a checkpoint has only what learns.
"""

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Protocol, runtime_checkable

import optax
from flax import linen as nn
from jax import Array

from jaxllm.models import ModelConfig
from jaxllm.training import Loss

Params = Any
"""Nested dicts of arrays."""
HEADS = ("head/*", "classifier/*")
"""Paths of the parameters of heads: of a task on text, and of a model of images."""


@runtime_checkable
class Method(Protocol):
    """A way to fit a pretrained model."""

    leaf: ClassVar[str | None]
    """Name, in a module's parameters, of those that the method adds; None where it adds none."""

    @property
    def dropout(self) -> float:
        """Probability with which the method drops values of its own while it learns."""
        ...

    @property
    def begins_apart(self) -> bool:
        """Whether `init` on CPUs must not be part of a compiled program, but be called with numbers that are there."""
        ...

    def check(self, model: ModelConfig) -> None:
        """Refuse a model that the method cannot work with."""
        ...

    def learns(self, path: str) -> bool:
        """Whether the parameter at this path learns."""
        ...

    def init(self, key: Array, params: Params, axes: Params, model: ModelConfig) -> tuple[Params, Params]:
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

    def prepare(self, params: Params) -> Params:
        """The parameters as they are computed with: the output matrix and the head of a task, by which a loss multiplies
        outside of the modules, have what the method adds to them worked in, so that gradients pass."""
        ...

    def penalty(self, params: Params) -> Array | None:
        """What is added to the mean loss, of all parameters; None for nothing."""
        ...

    def wrap(self, rule: optax.GradientTransformation, steps: int) -> optax.GradientTransformation:
        """The optimizer's update rule with what the method does in each of a run's steps."""
        ...


class Defaults:
    """What a method offers that adds nothing, changes nothing, and asks nothing of the optimizer."""

    leaf: ClassVar[str | None] = None

    @property
    def begins_apart(self) -> bool:
        return False

    def check(self, model: ModelConfig) -> None:
        pass

    def init(self, key: Array, params: Params, axes: Params, model: ModelConfig) -> tuple[Params, Params]:
        return {}, {}

    def run(self, module: nn.Module, own: Params, call: Callable, inputs: tuple, key: Array | None) -> Any:
        return call(*inputs)

    def merge(self, params: Params) -> Params | None:
        return params

    def prepare(self, params: Params) -> Params:
        return params

    def penalty(self, params: Params) -> Array | None:
        return None

    def wrap(self, rule: optax.GradientTransformation, steps: int) -> optax.GradientTransformation:
        return rule


def check_names(method: Any, paths: Callable[[], Sequence[str]]) -> None:
    """Refuses a path in a method's `also` or `patterns` that is no parameter's; those by default may be another model's.

    Args:
      paths: gives those of the model's parameters.

    Raises:
      ValueError: such a path; says which there are.
    """
    fields = getattr(method, "__dataclass_fields__", {})
    named = [(field, pattern) for field in ("also", "patterns") if field in fields for pattern in getattr(method, field)]
    for field, pattern in named:
        if pattern in fields[field].default:
            continue
        there = paths()
        known = [*there, *(path.removeprefix("encoder/").removeprefix("decoder/") for path in there)]
        if not any(fnmatchcase(path, pattern) for path in known):
            layers = "; all layers of a stack are in one" if re.search(r"layers/\d", pattern) else ""
            raise ValueError(f"method.{field}: no parameter has the path {pattern!r}{layers}: there are {', '.join(there)}")


def adapted_loss(method: Method, loss: Loss) -> Loss:
    """The loss of a model with a method, its penalty included: with any accumulation it counts once a step.

    objective.make_loss(model, config) becomes adapted_loss(method, objective.make_loss(model, config))
    """

    def whole(params: Any, batch: Any, dropout_key: Array | None) -> Any:
        sums = loss(method.prepare(params), batch, dropout_key)
        added = method.penalty(params)
        return sums if added is None else sums._replace(total=sums.total + added * sums.weight)

    return whole


def wrapped(method: Method, steps: int) -> Callable[[optax.GradientTransformation], optax.GradientTransformation]:
    """What `make_optimizer` is given as `wrap` for a run of `steps` steps."""
    return lambda rule: method.wrap(rule, steps)


def listed(path: str, patterns: Sequence[str]) -> bool:
    """Whether a path matches one of the patterns, * for any text."""
    return any(fnmatchcase(path, pattern) for pattern in patterns)
