"""Losses of preferences, from the log-probabilities of two answers to the same prompt: the chosen and the rejected one.

    sigmoid  -log σ(β (a - b)), direct preference optimization (arXiv:2305.18290, equation 7). With label smoothing ε, each
             preference is held to be wrong with that probability: -(1 - ε) log σ(β (a - b)) - ε log σ(-β (a - b))
    hinge    max(0, 1 - β (a - b)) (arXiv:2305.10425)
    ipo      (a / |chosen| - b / |rejected| - 1 / (2 β))² (arXiv:2310.12036, equation 17, by token as its authors compute it)
    orpo     -log p(chosen) / |chosen| - β log σ(log odds(chosen) - log odds(rejected)), without a reference (arXiv:2403.07691);
             odds of p = exp(mean log-probability of a token)

with a and b what the model gives the chosen and the rejected answer more than the reference does, in nats.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

Kind = Literal["sigmoid", "hinge", "ipo", "orpo"]


class Answers(NamedTuple):
    """Of each pair, what the model gives its two answers, the chosen one first."""

    log_probs: Float[Array, "B 2"]
    """Sums over the tokens of the answer, in nats."""
    tokens: Float[Array, "B 2"]
    """Their number."""


class Preferences(NamedTuple):
    losses: Float[Array, " B"]
    rewards: Float[Array, "B 2"]
    """Of the two answers; without a gradient."""


def preferences(
    kind: Kind, beta: float, label_smoothing: float, answers: Answers, reference: Float[Array, "B 2"] | None
) -> Preferences:
    """The losses of some pairs, and the rewards that they stand for.

    Args:
      reference: the log-probabilities that the reference gives the answers; None for orpo.
    """
    tokens = jnp.maximum(answers.tokens, 1)
    if kind == "orpo":
        mean = answers.log_probs / tokens
        return Preferences(odds_ratio_losses(beta, mean), jax.lax.stop_gradient(beta * mean))
    assert reference is not None
    more = answers.log_probs - reference
    margin = beta * (more[:, 0] - more[:, 1])
    if kind == "sigmoid":
        losses = -(1 - label_smoothing) * jax.nn.log_sigmoid(margin) - label_smoothing * jax.nn.log_sigmoid(-margin)
    elif kind == "hinge":
        losses = jax.nn.relu(1 - margin)
    else:
        by_token = more / tokens
        losses = jnp.square(by_token[:, 0] - by_token[:, 1] - 1 / (2 * beta))
    return Preferences(losses, jax.lax.stop_gradient(beta * more))


def odds_ratio_losses(beta: float, mean: Float[Array, "B 2"]) -> Float[Array, " B"]:
    """-β log σ(log odds(chosen) - log odds(rejected)), the part of ORPO's loss that sets the two answers against each other."""
    mean = jnp.minimum(mean, -jnp.finfo(jnp.float32).tiny)  # a probability of 1 has no odds
    odds = mean - log1mexp(mean)
    return -beta * jax.nn.log_sigmoid(odds[:, 0] - odds[:, 1])


def log1mexp(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """log(1 - eˣ) for x < 0, exact at both ends (Mächler 2012)."""
    small = x < -0.6931472
    return jnp.where(small, jnp.log1p(-jnp.exp(jnp.where(small, x, -1.0))), jnp.log(-jnp.expm1(jnp.where(small, -0.1, x))))
