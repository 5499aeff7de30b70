"""AdaLoRA: LoRA in the form of a singular value decomposition, P diag(λ) Q, which spends a budget of ranks where they matter
(arXiv:2303.10512).

    y = x · W + (alpha / r) · x · A · diag(e) · B        A: [inputs, r], e: [r], B: [r, outputs], e = 0 at first

A penalty keeps the columns of A and the rows of B orthonormal. In each step the triplets of all matrices are scored together by
how much the loss depends on them, and the lowest have their e set to 0, until only the budget is left: see `budget`. That is
part of the optimizer's update, so it is in every run and in every checkpoint.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array

from jaxllm.finetune.budget import Allocation, allocate
from jaxllm.finetune.lora import prepared
from jaxllm.finetune.low_rank import added, delta, dropped, low_rank
from jaxllm.finetune.method import HEADS, Defaults, listed
from jaxllm.finetune.targets import Target, begun, find_targets, transform
from jaxllm.models import ModelConfig
from jaxllm.sharding import einsum


@dataclass(frozen=True, kw_only=True)
class AdaLoRA(Defaults):
    leaf: ClassVar[str | None] = "adalora"

    init_rank: int = 12
    """R: rank of every matrix at first."""
    target_rank: int = 8
    """Mean rank of a matrix at the end."""
    alpha: float = 16.0
    """The product counts alpha / init_rank times."""
    dropout: float = 0.0
    """Probability of dropping a value of the product's input."""
    targets: tuple[str, ...] = ("all-linear",)
    """Projections, by the end of their path, * for any text; "all-linear" for all of the blocks."""
    exclude: tuple[str, ...] = ()
    """Projections that are left alone though `targets` means them."""
    tinit: int | None = None
    """Steps before the first rank is taken away. By default a tenth of all."""
    tfinal: int | None = None
    """Steps at the end in which ranks stay as they are, at least the last one. By default a third of all."""
    total_steps: int | None = None
    """Steps of the schedule. By default the run's when it starts."""
    delta_t: int = 1
    """Steps from one choice of ranks to the next."""
    beta1: float = 0.85
    """Decay of the moving average of importance."""
    beta2: float = 0.85
    """Decay of the moving average of its uncertainty."""
    orth_reg_weight: float = 0.5
    """Weight in the loss of the mean of ‖AᵀA - 1‖ and ‖BBᵀ - 1‖ over all matrices."""
    also: tuple[str, ...] = HEADS
    """Paths of parameters of the model that learn whole, * for any text; by default the head of a task."""

    def __post_init__(self) -> None:
        if not 1 <= self.target_rank <= self.init_rank:
            raise ValueError(
                f"method.target_rank must be in 1..init_rank: got target_rank={self.target_rank}, init_rank={self.init_rank}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"method.dropout must be in [0, 1): got {self.dropout}")
        for name in ("beta1", "beta2"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"method.{name} must be in (0, 1): got {getattr(self, name)}")
        if self.tinit is not None and self.tinit < 0:
            raise ValueError(f"method.tinit must be 0 or more: got {self.tinit}")
        for name in ("delta_t", "total_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"method.{name} must be at least 1: got {getattr(self, name)}")
        if self.orth_reg_weight < 0:
            raise ValueError(f"method.orth_reg_weight must be at least 0: got {self.orth_reg_weight}")

    def learns(self, path: str) -> bool:
        module, _, name = path.rpartition("/")
        return name in ("a", "e", "b") if module.endswith("/adalora") else listed(path, self.also)

    def init(self, key: Array, params: Any, axes: Any, model: ModelConfig) -> tuple[Any, Any]:
        targets = find_targets(params, axes, self.targets, exclude=self.exclude, partly=False)
        outside = [target.path for target in targets if target.is_embedding]
        if outside:
            raise ValueError(f"method AdaLoRA changes matrices that are multiplied by: {outside[0]} is none; take LoRA")
        return begun(targets, "adalora", self._triplets, key)

    def _triplets(self, key: Array, target: Target) -> tuple[dict[str, Array], dict[str, tuple[str, ...]]]:
        (leading, inputs, outputs), count, rank = target.sizes, target.axes[: target.leading], self.init_rank
        if rank > min(target.widths):
            raise ValueError(
                f"method.init_rank must be at most the smaller side of a matrix: got {rank} for {target.path} of "
                f"{target.widths[0]} x {target.widths[1]}"
            )
        keys = jax.random.split(key)
        values = {
            "a": 0.02 * jax.random.normal(keys[0], (*leading, *inputs, rank), jnp.float32),
            "e": jnp.zeros((*leading, rank), jnp.float32),
            "b": 0.02 * jax.random.normal(keys[1], (*leading, rank, *outputs), jnp.float32),
            "scale": jnp.full(leading, self.alpha / (rank + 1e-5), jnp.float32),
        }
        names = {
            "a": (*count, *target.inputs, "rank"),
            "e": (*count, "rank"),
            "b": (*count, "rank", *target.outputs),
            "scale": count,
        }
        return values, names

    def run(self, module: nn.Module, own: Any, call: Callable, inputs: tuple, key: Array | None) -> Any:
        (x,) = inputs
        return call(x) + low_rank(module, own, dropped(module, x, self.dropout, key))

    def prepare(self, params: Any) -> Any:
        change = lambda module, own, _: module | {"kernel": added(module["kernel"], own, ("embed", "vocab"))}  # noqa: E731
        return prepared(params, "adalora", change)

    def merge(self, params: Any) -> Any:
        return transform(params, "adalora", _merge_module)

    def penalty(self, params: Any) -> Array | None:
        """orth_reg_weight · the mean over all A and B of ‖AᵀA - 1‖, Frobenius."""
        norms = []
        for own, leading in owned(params, "adalora"):
            head, axes = "L" * leading, (*("layers",) * leading, "rank", "rank")
            for name in ("a", "b"):
                rest = "XYZ"[: own[name].ndim - leading - 1]
                letters = f"{head}{rest}R" if name == "a" else f"{head}R{rest}"
                equation = f"{letters},{letters.replace('R', 'S')}->{head}RS"
                gram = einsum(equation, own[name], own[name], out=axes)
                apart = gram - jnp.eye(gram.shape[-1]).reshape((1,) * leading + gram.shape[-2:])
                norms.append(jnp.sqrt(jnp.sum(jnp.square(apart), axis=(-2, -1)) + 1e-12))
        count = sum(norm.size for norm in norms)
        return self.orth_reg_weight * sum((jnp.sum(norm) for norm in norms), jnp.zeros(())) / count

    def allocation(self, steps: int) -> Allocation:
        """When ranks are chosen, in a run of `steps` steps where `total_steps` does not say.

        Raises:
          ValueError: no step is left between the first steps and the last.
        """
        steps = self.total_steps or steps
        tinit = steps // 10 if self.tinit is None else self.tinit
        tfinal = max(1, steps // 3 if self.tfinal is None else self.tfinal)
        if tinit + tfinal >= steps:
            raise ValueError(
                f"method.tinit and method.tfinal must leave steps between them: got {tinit} and {tfinal} of {steps} steps"
            )
        return Allocation(tinit=tinit, last=steps - tfinal, delta_t=self.delta_t, beta1=self.beta1, beta2=self.beta2)

    def wrap(self, rule: optax.GradientTransformation, steps: int) -> optax.GradientTransformation:
        return allocate(rule, self.allocation(steps), self.init_rank, self.target_rank)


def owned(params: Any, leaf: str, leading: int = 0) -> list[tuple[Any, int]]:
    """A method's own parameters of each module, and how many leading dimensions of theirs count layers."""
    if isinstance(params, tuple):
        return [pair for value in params for pair in owned(value, leaf)]
    if not isinstance(params, dict):
        return []
    here = [(params[leaf], leading)] if leaf in params else []
    inner = ((name, value) for name, value in params.items() if name != leaf)
    return here + [pair for name, value in inner for pair in owned(value, leaf, 1 if name == "layers" else leading)]


def _merge_module(module: Any, own: Any, leading: int) -> Any:
    kernel = module["kernel"]
    return module | {"kernel": (kernel.astype(jnp.float32) + delta(kernel, own)).astype(kernel.dtype)}
