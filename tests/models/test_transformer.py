import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.models import Transformer, TransformerConfig, count_params, init_params, train_flops_per_token
from tests.models.options import tiny


def test_gpt2_has_exactly_its_published_parameters():
    config = TransformerConfig(vocab_size=50257, context_len=1024, num_layers=12, embed_dim=768, num_heads=12)
    assert count_params(config) == 124_439_808


def test_flops_per_token_of_gpt2():
    """6 for each of the 85.0M block and 38.6M unembedding matrix parameters, and 12 L N H T of attention."""
    config = TransformerConfig(vocab_size=50257, context_len=1024, num_layers=12, embed_dim=768, num_heads=12)
    assert train_flops_per_token(config, 1024) == 6 * (12 * 12 * 768**2 + 768 * 50257) + 12 * 12 * 768 * 1024


def test_parameters_are_plain_nested_dicts_stacked_over_layers():
    params = init_params(Transformer(tiny("gpt2")), jax.random.key(0))
    assert type(params) is dict and type(params["layers"]["attention"]) is dict
    assert params["layers"]["attention"]["query"]["kernel"].shape == (2, 32, 4, 8)


def test_initial_scale():
    """Weights have init_std; projections into the residual stream 1/sqrt(2 L) of it; layers differ."""
    config = tiny("gpt2", embed_dim=128, ffw_dim=512, init_std=0.02)
    layers = init_params(Transformer(config), jax.random.key(0))["layers"]
    assert jnp.std(layers["ffw"]["up"]["kernel"]) == pytest.approx(0.02, rel=0.02)
    assert jnp.std(layers["ffw"]["down"]["kernel"]) == pytest.approx(0.01, rel=0.02)
    assert not jnp.array_equal(layers["ffw"]["up"]["kernel"][0], layers["ffw"]["up"]["kernel"][1])


def test_capture_hands_out_hidden_states_and_attention():
    model = Transformer(tiny("gpt2"))
    params = init_params(model, jax.random.key(0))
    output = model.apply({"params": params}, jnp.arange(8)[None], capture=("hidden", "attention"))
    assert output.captured["hidden"].shape == (3, 1, 8, 32)
    attention = output.captured["attention"]
    assert attention.shape == (2, 1, 4, 8, 8)
    np.testing.assert_allclose(attention.sum(-1), 1, atol=1e-6)
    assert (jnp.triu(attention[0, 0, 0], 1) == 0).all()
    with pytest.raises(ValueError, match="capture must be among hidden, attention: got 'hiden'"):
        model.apply({"params": params}, jnp.arange(8)[None], capture=("hiden",))


def test_compute_dtype_is_separate_and_logits_are_float32():
    model = Transformer(tiny("gpt2", compute_dtype="bfloat16"))
    params = init_params(model, jax.random.key(0))
    output = model.apply({"params": params}, jnp.arange(8)[None])
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert output.hidden.dtype == jnp.bfloat16 and output.logits.dtype == jnp.float32


@pytest.mark.parametrize("loop", ["scan", "unroll"])
def test_dropout_needs_a_key_and_is_a_function_of_it(loop):
    model = Transformer(tiny("gpt2", dropout=0.5, layer_loop=loop))
    params = init_params(model, jax.random.key(0))
    run = lambda key: model.apply({"params": params}, jnp.arange(8)[None], dropout_key=key).logits  # noqa: E731
    without = Transformer(dataclasses.replace(model.config, dropout=0.0)).apply({"params": params}, jnp.arange(8)[None])
    np.testing.assert_array_equal(run(None), without.logits)
    np.testing.assert_array_equal(run(jax.random.key(1)), run(jax.random.key(1)))
    assert not jnp.allclose(run(jax.random.key(1)), run(jax.random.key(2)))
    assert not jnp.allclose(run(jax.random.key(1)), run(None))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(embed_dim=768, num_heads=7), "num_heads must divide embed_dim: got embed_dim=768, num_heads=7"),
        (dict(num_heads=4, num_kv_heads=3), "num_kv_heads must divide num_heads: got num_heads=4, num_kv_heads=3"),
        (dict(position="rotary", head_dim=7), "rotary positions need an even head_dim: got 7"),
        (dict(dropout=1.0), r"dropout must be in \[0, 1\): got 1.0"),
        (dict(num_layers=0), "num_layers must be at least 1: got 0"),
        (dict(parallel_block=True, norm_placement="post"), "parallel_block needs norm_placement='pre'"),
    ],
)
def test_impossible_configs_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**fields)
