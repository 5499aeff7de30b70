"""Tokens added and taken off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.interchange import resize_vocabulary
from jaxllm.models import Transformer, TransformerConfig, init_params

CONFIG = TransformerConfig(vocab_size=20, context_len=16, num_layers=1, embed_dim=16, num_heads=2)
TOKENS = jnp.arange(8)[None]


def built(tied):
    model = Transformer(TransformerConfig(**{**CONFIG.__dict__, "tie_embeddings": tied}))
    return model, jax.jit(lambda key: init_params(model, key))(jax.random.key(0))


@pytest.mark.parametrize("tied", [True, False])
def test_old_tokens_keep_their_logits_and_new_ones_are_average(tied):
    model, params = built(tied)
    bigger, config = resize_vocabulary(params, model.config, 30, jax.random.key(1))
    assert config.vocab_size == 30
    old = model.apply({"params": params}, TOKENS).logits
    new = Transformer(config).apply({"params": bigger}, TOKENS).logits
    np.testing.assert_allclose(new[..., :20], old, atol=1e-6)
    np.testing.assert_allclose(new[..., 20:], np.broadcast_to(old.mean(-1, keepdims=True), new[..., 20:].shape), atol=1e-3)
    rows = np.asarray(bigger["embed"]["table"])[20:]
    assert len(np.unique(rows, axis=0)) == 10  # not one row ten times


@pytest.mark.parametrize("tied", [True, False])
def test_smaller(tied):
    model, params = built(tied)
    smaller, config = resize_vocabulary(params, model.config, 12, jax.random.key(1))
    old = model.apply({"params": params}, TOKENS).logits
    new = Transformer(config).apply({"params": smaller}, TOKENS).logits
    np.testing.assert_allclose(new, old[..., :12], atol=1e-6)


def test_the_key_decides():
    model, params = built(tied=False)
    one, two, other = (resize_vocabulary(params, model.config, 21, jax.random.key(seed))[0] for seed in (1, 1, 2))
    assert (one["embed"]["table"] == two["embed"]["table"]).all()
    assert (one["embed"]["table"] != other["embed"]["table"]).any()


def test_a_size_that_is_none():
    model, params = built(tied=True)
    with pytest.raises(ValueError, match="new_size must be at least 1: got 0"):
        resize_vocabulary(params, model.config, 0, jax.random.key(0))
