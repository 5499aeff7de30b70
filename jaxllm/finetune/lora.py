"""LoRA: to each chosen matrix a product of two thin ones is added, which alone learn (arXiv:2106.09685).

    y = x · W + (alpha / r) · x · A · B        A: [inputs, r], B: [r, outputs], B = 0 at first

rsLoRA divides alpha by √r (arXiv:2312.03732). DoRA scales each column of W + (alpha / r) · A · B to a length m of its own, that
learns, too (arXiv:2402.09353). PiSSA begins with the r largest singular vectors of W in A and B, and the rest in W
(arXiv:2404.02948). LoRA+ trains B faster than A (arXiv:2402.12354).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from jaxllm.finetune.targets import Target, find_targets, joined, matches, nested
from jaxllm.models import ModelConfig
from jaxllm.models.layers import Project, dropout
from jaxllm.sharding import Axes, einsum


@dataclass(frozen=True, kw_only=True)
class LoRA:
    leaf: ClassVar[str | None] = "lora"

    rank: int = 8
    """R: width of the product."""
    alpha: float = 16.0
    """The product counts alpha / rank times."""
    dropout: float = 0.0
    """Probability of dropping a value of the product's input."""
    targets: tuple[str, ...] = ("query", "value")
    """Projections, by the end of their path, * for any text: "attention/*"; "all-linear" for all of the blocks."""
    rank_patterns: tuple[tuple[str, int], ...] = ()
    """Pattern and rank of projections that have another; the first that matches."""
    alpha_patterns: tuple[tuple[str, float], ...] = ()
    """Pattern and alpha of projections that have another; the first that matches."""
    rank_stabilized: bool = False
    """Divide alpha by the root of the rank (rsLoRA)."""
    initialization: Literal["kaiming", "gaussian"] = "kaiming"
    """How A begins: uniform in ±1/√inputs, or normal with deviation 1/rank."""
    also: tuple[str, ...] = ("head/*",)
    """Paths of parameters of the model that learn whole, * for any text; by default the head of a task."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"method.rank must be at least 1: got {self.rank}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"method.dropout must be in [0, 1): got {self.dropout}")

    def check(self, model: ModelConfig) -> None:
        pass

    def learns(self, path: str) -> bool:
        own = "/lora/" in path and not path.endswith("/scale")
        return own or any(fnmatchcase(path, pattern) for pattern in self.also)

    def init_target(self, key: Array, target: Target) -> tuple[dict[str, Any], dict[str, Any]]:
        """A, B and scale for one projection, and their logical axes."""
        leading, inputs, outputs = target.sizes
        rank = next((rank for pattern, rank in self.rank_patterns if matches(target.path, pattern)), self.rank)
        alpha = next((alpha for pattern, alpha in self.alpha_patterns if matches(target.path, pattern)), self.alpha)
        if rank > min(math.prod(inputs), math.prod(outputs)):
            raise ValueError(
                f"method.rank must be at most the smaller side of a matrix: got {rank} for {target.path} of "
                f"{math.prod(inputs)} x {math.prod(outputs)}"
            )
        shape, width = (*leading, *inputs, rank), math.prod(inputs)
        if self.initialization == "kaiming":
            a = jax.random.uniform(key, shape, jnp.float32, -(width**-0.5), width**-0.5)
        else:
            a = jax.random.normal(key, shape, jnp.float32) / rank
        scale = jnp.full(leading, alpha / (rank**0.5 if self.rank_stabilized else rank), jnp.float32)
        count = target.axes[: target.leading]
        values = {"a": a, "b": jnp.zeros((*leading, rank, *outputs), jnp.float32), "scale": scale}
        axes = {"a": (*count, *target.inputs, "rank"), "b": (*count, "rank", *target.outputs), "scale": count}
        return values, {name: Axes(names) for name, names in axes.items()}

    def init(self, key: Array, params: Any, axes: Any) -> tuple[Any, Any]:
        made = []
        for number, target in enumerate(find_targets(params, axes, self.targets)):
            values, names = self.init_target(jax.random.fold_in(key, number), target)
            made.append((nested(f"{target.path}/lora", values), nested(f"{target.path}/lora", names)))
        return joined([values for values, _ in made]), joined([names for _, names in made])

    def run(self, module: nn.Module, own: Any, call: Callable, inputs: tuple, key: Array | None) -> Any:
        assert isinstance(module, Project)
        (x,) = inputs
        return call(x) + low_rank(module, own, dropped(module, x, self.dropout, key))

    def merge(self, params: Any) -> Any:
        return merge_low_rank(params)


def dropped(module: Project, x: Array, rate: float, key: Array | None) -> Array:
    """The input of a projection with values dropped."""
    letters, kernel = module.equation.split("->")[0].split(",")
    axes = dict(zip(kernel, module.axes, strict=True))
    return dropout(x, rate, key, 0, ["batch", "time", *(axes[letter] for letter in letters[2:])])


def low_rank(module: Project, own: Any, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """scale · x · A · B, as the projection's equation has it: A has the input's letters that are multiplied, B those of the
    result."""
    inputs, result = module.equation.split("->")
    x_letters, kernel = inputs.split(",")
    contracted = "".join(letter for letter in kernel if letter not in result)
    produced = "".join(letter for letter in kernel if letter in result)
    kept = "".join(letter for letter in x_letters if letter in result)
    a, b, scale = (own[name].astype(x.dtype) for name in ("a", "b", "scale"))
    thin = einsum(f"{x_letters},{contracted}R->{kept}R", x, a, out=("batch", "time", "rank"))
    return einsum(f"{kept}R,R{produced}->{result}", thin * scale, b, out=module.out)


def delta(kernel: Float[Array, "..."], own: Any) -> Float[Array, "..."]:
    """scale · A · B in the shape of the kernel, in float32."""
    a, b, scale = own["a"], own["b"], own["scale"]
    leading, rank = scale.ndim, b.shape[scale.ndim]
    flat = [x.astype(jnp.float32).reshape(*x.shape[:leading], *shape) for x, shape in ((a, (-1, rank)), (b, (rank, -1)))]
    product = jnp.matmul(*flat, precision="highest") * scale[(...,) + (None, None)]
    return product.reshape(kernel.shape)


def merge_low_rank(params: Any) -> Any:
    """The parameters with each `lora` worked into the kernel beside it."""
    if not isinstance(params, dict):
        return params
    merged = {name: merge_low_rank(value) for name, value in params.items() if name != "lora"}
    if "lora" in params:
        kernel = merged["kernel"]
        merged["kernel"] = (kernel.astype(jnp.float32) + delta(kernel, params["lora"])).astype(kernel.dtype)
    return merged
