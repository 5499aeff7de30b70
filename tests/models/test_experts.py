"""A mixture of experts: both ways to compute it, and the losses that keep its router balanced."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxllm.models import ExpertsConfig, make_model, router_losses
from tests.models.options import tiny
from tests.models.programs import T, packed_rows, parameters, program, spread
from tests.models.reference import softmax


def test_sorted_equals_dense():
    """Logits and every gradient. Most experts get one; some have no token, an empty stretch of rows."""
    found = []
    for dispatch in ("sorted", "dense"):
        config = tiny("experts")
        config = dataclasses.replace(config, experts=dataclasses.replace(config.experts, dispatch=dispatch))
        found.append(program(config)(parameters(config), packed_rows(), spread((4, T)), np.float32(1)))
    (sorted_value, sorted_gradient), (dense_value, dense_gradient) = found
    np.testing.assert_allclose(sorted_value[1][0], dense_value[1][0], atol=1e-5)
    for name in ("router", "up", "gate", "down"):
        one, other = sorted_gradient["layers"]["experts"][name], dense_gradient["layers"]["experts"][name]
        one, other = (tree["kernel"] if name == "router" else tree for tree in (one, other))
        np.testing.assert_allclose(one, other, atol=2e-5 * np.abs(other).max())
        reached = np.abs(one).max(axis=(-2, -1)) > 0
        assert name == "router" or 1 <= (~reached).sum() <= 4


def test_router_logits_are_handed_out():
    config = tiny("experts")
    model, params = make_model(config), parameters(config)
    got = jax.eval_shape(lambda batch: model.apply({"params": params}, **batch).router_logits, packed_rows())
    assert got.shape == (2, 4, T, 6) and got.dtype == jnp.float32


def test_router_losses():
    """One loop for each sum; padding counts nowhere."""
    L, B, S, E, top_k = 2, 3, 5, 4, 2
    rng = np.random.default_rng(0)
    logits, weights = rng.normal(size=(L, B, S, E)), np.ones((B, S))
    weights[1, 3:] = weights[2, 0] = 0
    choices, probability, z, tokens = np.zeros(E), np.zeros(E), 0.0, 0
    for layer, b, t in np.ndindex(L, B, S):
        if weights[b, t]:
            x = logits[layer, b, t]
            tokens += 1
            probability += softmax(x)
            choices[np.argsort(-x)[:top_k]] += 1
            z += math.log(np.exp(x).sum()) ** 2
    balance = E * sum(choices[e] / tokens * probability[e] / tokens for e in range(E))
    experts = ExpertsConfig(num_experts=E, top_k=top_k)
    got = router_losses(jnp.asarray(logits, jnp.float32), jnp.asarray(weights, jnp.float32), experts)
    np.testing.assert_allclose(got, (balance, z / tokens), rtol=1e-5)


def test_a_balanced_router_has_the_least_loss():
    """Equal shares give top_k; all tokens on the same experts give more."""
    experts, weights = ExpertsConfig(num_experts=4, top_k=1), jnp.ones((1, 4))
    even, same = 5 * jnp.eye(4)[None, None], 5 * jnp.eye(4)[jnp.zeros(4, int)][None, None]
    np.testing.assert_allclose(router_losses(even, weights, experts)[0], 1.0, rtol=1e-6)
    assert router_losses(same, weights, experts)[0] > 3
