import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.evaluate import evaluate


def batches(count):
    rng = np.random.default_rng(0)
    for number in range(count):
        weights = np.zeros(12, np.float32)
        weights[: 12 if number < count - 1 else 5] = 1.0  # the last batch is not full
        yield {"losses": rng.uniform(0.0, 4.0, 12).astype(np.float32), "loss_weights": weights}


def eval_step(params, batch):
    losses = params * jnp.asarray(batch["losses"])
    return {"loss_sum": jnp.sum(losses * batch["loss_weights"]), "weight": jnp.sum(jnp.asarray(batch["loss_weights"]))}


@pytest.mark.parametrize("count", [1, 8, 21])
def test_every_target_counts_once(count):
    together = [np.concatenate(x) for x in zip(*(b.values() for b in batches(count)), strict=True)]
    losses, weights = (x.astype(np.float64) for x in together)
    results = evaluate(eval_step, 1.0, batches(count))
    assert results["loss"] == pytest.approx((losses * weights).sum() / weights.sum(), rel=1e-6)
    assert results["perplexity"] == math.exp(results["loss"])
    assert results["tokens"] == 12 * (count - 1) + 5


def test_sums_do_not_lose_small_terms():
    """2^24 + 1 is not a float32: a sum kept in float32 would stop growing."""
    steps = [2.0**24] + [1.0] * 64
    results = evaluate(
        lambda params, batch: {"loss_sum": batch["x"], "weight": batch["x"]},
        None,
        [{"x": jnp.float32(x)} for x in steps],
    )
    assert results["tokens"] == 2.0**24 + 64 and results["loss"] == 1.0


def test_a_diverged_model_has_infinite_perplexity():
    results = evaluate(lambda params, batch: {"loss_sum": 1e4, "weight": 1.0}, None, [{}])
    assert results["loss"] == 1e4 and results["perplexity"] == math.inf


def test_a_split_without_tokens():
    with pytest.raises(ValueError, match="at least one token with a target: got none"):
        evaluate(eval_step, 1.0, [])
