"""What is minimized, against NumPy; the step as a whole is in test_step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.models import ExpertsConfig, Transformer, TransformerConfig, init_params, router_losses
from jaxllm.training import LossConfig, cross_entropy, make_loss


def drawn(seed=0):
    random = np.random.default_rng(seed)
    logits, targets = random.normal(size=(2, 5, 7)).astype(np.float32) * 3, random.integers(0, 7, (2, 5)).astype(np.int32)
    return logits, targets, random.random((2, 5)).astype(np.float32)


def test_label_smoothing_is_the_cross_entropy_of_the_spread_target():
    logits, targets, weights = drawn()
    sums = cross_entropy(*map(jnp.asarray, (logits, targets, weights)), LossConfig(label_smoothing=0.1))
    log_p = np.asarray(jax.nn.log_softmax(logits.astype(np.float64)))
    spread = 0.9 * np.eye(7)[targets] + 0.1 / 7
    assert sums.total == pytest.approx(-(weights[..., None] * spread * log_p).sum(), rel=1e-5)
    plain = cross_entropy(*map(jnp.asarray, (logits, targets, weights)), LossConfig())
    assert (
        sums.cross_entropy == plain.cross_entropy and plain.total == plain.cross_entropy
    )  # the loss that is reported is without it


def test_correct_counts_the_targets_that_are_most_likely():
    logits, targets, weights = drawn(1)
    targets[0] = logits[0].argmax(-1)
    sums = cross_entropy(*map(jnp.asarray, (logits, targets, weights)), LossConfig())
    assert sums.correct == pytest.approx((weights * (logits.argmax(-1) == targets)).sum(), rel=1e-6)
    assert 0 < sums.correct < sums.weight


@pytest.mark.parametrize("chunk", [None, 4])
def test_routers_are_asked_for_balance(chunk):
    """Their losses count as much as the batch has targets, whatever is padding."""
    experts = ExpertsConfig(num_experts=4, top_k=2, load_balance=0.5, router_z_loss=0.25, dispatch="dense")
    config = TransformerConfig(
        vocab_size=32, context_len=8, num_layers=2, embed_dim=16, num_heads=2, init_std=0.3, experts=experts
    )
    model = Transformer(config)
    params = init_params(model, jax.random.key(0))
    tokens = np.random.default_rng(0).integers(0, 32, (3, 8)).astype(np.int32)
    there = (np.arange(8) < np.array([[8], [5], [2]])).astype(np.int32)
    position = np.broadcast_to(np.arange(8, dtype=np.int32), (3, 8))
    batch = dict(tokens=tokens, targets=tokens, positions=position, segment_ids=there, loss_weights=there.astype(np.float32))
    batch = {name: jnp.asarray(array) for name, array in batch.items()}
    sums = make_loss(model, LossConfig(chunk=chunk))(params, batch, None)
    output = model.apply({"params": params}, batch["tokens"], segment_ids=jnp.asarray(there))
    balance, z = router_losses(output.router_logits, jnp.asarray(there, jnp.float32), experts)  # type: ignore[union-attr]
    assert (
        float(sums.total - sums.cross_entropy) == pytest.approx(15 * float(0.5 * balance + 0.25 * z), rel=1e-5)
        and sums.weight == 15
    )
    plain = make_loss(Transformer(config), LossConfig())(params, {**batch, "tokens": batch["tokens"] * there}, None)
    assert float(plain.total - plain.cross_entropy) == pytest.approx(float(sums.total - sums.cross_entropy), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, r"loss.label_smoothing must be in \[0, 1\): got 1.0"),
        ({"z_loss": -1.0}, "loss.z_loss must be at least 0: got -1"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        LossConfig(**options)
