"""P-tuning: prompt tuning whose vectors a small network makes from n others, and both learn (arXiv:2103.10385).

    mlp:  v = W₃ relu(W₂ relu(W₁ e + b₁) + b₂) + b₃
    lstm: v = W₂ relu(W₁ h + b₁) + b₂ for h of both directions over the sequence of e

`settle` leaves the vectors, as files of PEFT have them.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxllm.finetune.prompt import Prompt
from jaxllm.finetune.soft import named, uniform
from jaxllm.models import ModelConfig

# n virtual tokens, D residual width, I inputs, M width of the network, 4 gates: input, forget, cell, output

DIRECTIONS = ("forward", "backward")


@dataclass(frozen=True, kw_only=True)
class PTuning(Prompt):
    """A network that makes the vectors, and what it makes them from."""

    encoder: Literal["mlp", "lstm"] = "mlp"
    """The network."""
    hidden: int | None = None
    """Width of the network, of each direction. By default the model's."""
    layers: int = 2
    """Layers of the LSTM, each in both directions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers < 1:
            raise ValueError(f"method.layers must be at least 1: got {self.layers}")

    def init(self, key: Array, params: Any, axes: Any, model: ModelConfig) -> tuple[Any, Any]:
        dim = self.stack(model).embed_dim
        hidden, draw = self.hidden or dim, iter(jax.random.split(key, 3 + 6 * (self.layers + 1)))
        values: dict[str, Any] = {"embedding": jax.random.normal(next(draw), (self.tokens, dim))}
        names: dict[str, Any] = {"embedding": ("position", "embed")}
        if self.encoder == "mlp":
            widths = (dim, hidden, hidden, dim)
        else:
            widths = (2 * hidden, 2 * hidden, dim)
            values["lstm"], names["lstm"] = {}, {}
            for layer in range(self.layers):
                inputs = 2 * hidden if layer else dim
                both = {side: _gates(draw, inputs, hidden) for side in DIRECTIONS}
                values["lstm"][f"layer_{layer}"] = both
                names["lstm"][f"layer_{layer}"] = jax.tree.map(lambda x: ("rank",) * x.ndim, both)
        for number, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
            own = {"kernel": uniform(next(draw), (inputs, outputs), inputs), "bias": uniform(next(draw), (outputs,), inputs)}
            values[f"dense_{number}"], names[f"dense_{number}"] = own, {"kernel": ("rank", "rank"), "bias": ("rank",)}
        values, names = named(values, names)
        return self.outer(model, values), self.outer(model, names)

    def settled(self, own: Any) -> dict[str, Array]:
        if "table" in own:
            return own
        x = own["embedding"]
        for layer in range(len(own.get("lstm", {}))):
            x = bidirectional_lstm(own["lstm"][f"layer_{layer}"], x)
        dense = [own[name] for name in sorted(name for name in own if name.startswith("dense_"))]
        for number, layer in enumerate(dense):
            x = jnp.matmul(x, layer["kernel"]) + layer["bias"][None]
            x = x if number == len(dense) - 1 else jax.nn.relu(x)
        return {"table": x}


def _gates(draw: Any, inputs: int, hidden: int) -> dict[str, Array]:
    shapes = {"input": (inputs, 4, hidden), "recurrent": (hidden, 4, hidden), "bias": (4, hidden)}
    return {name: uniform(next(draw), shape, hidden) for name, shape in shapes.items()}


def bidirectional_lstm(own: Any, x: Float[Array, "n I"]) -> Float[Array, "n M2"]:
    """Hidden states of an LSTM (Hochreiter and Schmidhuber, 1997) that reads from the front and one that reads from the back,
    side by side."""
    forward, backward = _lstm(own["forward"], x), _lstm(own["backward"], x[::-1])[::-1]
    return jnp.concatenate([forward, backward], axis=1)


def _lstm(own: Any, x: Float[Array, "n I"]) -> Float[Array, "n M"]:
    inputs = jnp.einsum("nI,IGM->nGM", x, own["input"]) + own["bias"][None]

    def step(state: tuple[Array, Array], given: Array) -> tuple[tuple[Array, Array], Array]:
        hidden, cell = state
        gates = given + jnp.einsum("M,MGO->GO", hidden, own["recurrent"])
        write, keep, show = (jax.nn.sigmoid(gates[place]) for place in (0, 1, 3))
        cell = keep * cell + write * jnp.tanh(gates[2])
        hidden = show * jnp.tanh(cell)
        return (hidden, cell), hidden

    start = jnp.zeros(own["bias"].shape[-1], x.dtype)
    return jax.lax.scan(step, (start, start), inputs)[1]
