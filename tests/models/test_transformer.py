import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.models import Encoded, Transformer, init_cache, init_params
from tests.models.options import tiny


def made(model):
    return jax.jit(lambda key: init_params(model, key))(jax.random.key(0))


def test_parameters_are_plain_nested_dicts_stacked_over_layers():
    params = made(Transformer(tiny("gpt2")))
    assert type(params) is dict and type(params["layers"]["attention"]) is dict
    assert params["layers"]["attention"]["query"]["kernel"].shape == (2, 32, 4, 8)


def test_initial_scale():
    """Weights have init_std; projections into the residual stream 1/sqrt(2 L) of it; layers differ."""
    config = tiny("gpt2", embed_dim=128, ffw_dim=512, init_std=0.02)
    layers = made(Transformer(config))["layers"]
    assert jnp.std(layers["ffw"]["up"]["kernel"]) == pytest.approx(0.02, rel=0.02)
    assert jnp.std(layers["ffw"]["down"]["kernel"]) == pytest.approx(0.01, rel=0.02)
    assert not jnp.array_equal(layers["ffw"]["up"]["kernel"][0], layers["ffw"]["up"]["kernel"][1])


def test_capture_hands_out_hidden_states_and_attention():
    model = Transformer(tiny("gpt2"))
    params = made(model)
    output = jax.jit(lambda p: model.apply({"params": p}, jnp.arange(8)[None], capture=("hidden", "attention")))(params)
    assert output.captured["hidden"].shape == (3, 1, 8, 32)
    attention = output.captured["attention"]
    assert attention.shape == (2, 1, 4, 8, 8)
    np.testing.assert_allclose(attention.sum(-1), 1, atol=1e-6)
    assert (jnp.triu(attention[0, 0, 0], 1) == 0).all()
    with pytest.raises(ValueError, match="capture must be among hidden, attention: got 'hiden'"):
        model.apply({"params": params}, jnp.arange(8)[None], capture=("hiden",))


def test_compute_dtype_is_separate_and_logits_are_float32():
    model = Transformer(tiny("gpt2", compute_dtype="bfloat16"))
    params = made(model)
    output = jax.jit(lambda p: model.apply({"params": p}, jnp.arange(8)[None])._replace(captured={}))(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert output.hidden.dtype == jnp.bfloat16 and output.logits.dtype == jnp.float32


@pytest.mark.parametrize("loop", ["scan", "unroll"])
def test_dropout_needs_a_key_and_is_a_function_of_it(loop):
    model = Transformer(tiny("gpt2", dropout=0.5, layer_loop=loop))
    params = made(model)
    run = jax.jit(lambda key: model.apply({"params": params}, jnp.arange(8)[None], dropout_key=key).logits)
    off = Transformer(dataclasses.replace(model.config, dropout=0.0))
    without = jax.jit(lambda p: off.apply({"params": p}, jnp.arange(8)[None]).logits)(params)
    np.testing.assert_allclose(run(None), without, atol=1e-6)
    np.testing.assert_array_equal(run(jax.random.key(1)), run(jax.random.key(1)))
    assert not jnp.allclose(run(jax.random.key(1)), run(jax.random.key(2)))
    assert not jnp.allclose(run(jax.random.key(1)), run(None))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(token_types=jnp.zeros((1, 8), jnp.int32)), "token_types were given to a config without them"),
        (
            dict(memory=Encoded(jnp.zeros((1, 3, 32)), jnp.ones((1, 3), jnp.int32))),
            "memory was given to a config without cross",
        ),
        (dict(cache=init_cache(tiny("gpt2"), 1, 4)), "the cache must have room for the tokens: 8 for 4 slots"),
    ],
)
def test_what_the_config_would_not_read_is_refused(given, message):
    model = Transformer(tiny("gpt2"))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda key: model.init(key, jnp.arange(8)[None], **given), jax.random.key(0))


def test_a_prefix_is_refused_where_all_is_seen():
    model = Transformer(tiny("gpt2", causal=False))
    with pytest.raises(ValueError, match="prefix was given to a config with causal=False"):
        jax.eval_shape(lambda key: model.init(key, jnp.arange(8)[None], prefix=jnp.ones((1, 8), bool)), jax.random.key(0))


def test_positions_that_skip_padding():
    """Counted from the tokens alone: padding before them changes nothing, in one call or with a cache."""
    tokens, zeros = jnp.asarray([[3, 1, 4, 1, 5]]), jnp.zeros((1, 3), jnp.int32)
    padded, real = jnp.concatenate([zeros, tokens], axis=1), jnp.concatenate([zeros, jnp.ones_like(tokens)], axis=1)
    config = tiny("gpt2", position_skips_padding=True)
    model, params = Transformer(config), made(Transformer(config))
    alone = model.apply({"params": params}, tokens).logits
    np.testing.assert_allclose(model.apply({"params": params}, padded, segment_ids=real).logits[:, 3:], alone, atol=1e-5)
    counted = Transformer(tiny("gpt2")).apply({"params": params}, padded, segment_ids=real).logits[:, 3:]
    assert jnp.abs(counted - alone).max() > 0.01
    first = model.apply({"params": params}, padded[:, :6], segment_ids=real[:, :6], cache=init_cache(config, 1, 8))
    rest = model.apply({"params": params}, padded[:, 6:], segment_ids=real[:, 6:], cache=first.cache)
    np.testing.assert_allclose(jnp.concatenate([first.logits[:, 3:], rest.logits], axis=1), alone, atol=1e-5)
