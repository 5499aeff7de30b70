"""Heads removed from the weights: what a head mask of 0 computes, in every call, with parameters really smaller."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.models import abstract_params, count_params, init_cache, make_model, prune_heads, train_flops_per_token
from jaxllm.models.vision import VisionConfig
from tests.models.options import tiny, tiny_encoder
from tests.models.programs import T, explicit_mesh_agrees, packed_rows, parameters

ROWS = {
    "alibi": (tiny("alibi", num_kv_heads=None), {0: [1, 3], 1: [0, 2]}),
    "gemma": (tiny("gemma"), {0: [2, 3]}),
    "relative_bert": (tiny_encoder("relative_bert"), {0: [0, 1], 1: [2, 3]}),
    "relative_key_bert": (tiny_encoder("relative_key_bert", layer_loop="unroll"), {0: [3, 0]}),
}
every_row = pytest.mark.parametrize("name", ROWS)


def mask_of(config, heads):
    mask = np.ones((config.num_layers, config.num_heads), np.float32)
    for layer, some in heads.items():
        mask[layer, some] = 0
    return mask


@every_row
def test_pruned_equals_masked(name):
    config, heads = ROWS[name]
    params, batch, masks = parameters(config), jax.device_put(packed_rows()), mask_of(config, heads)
    smaller, fewer = prune_heads(config, params, heads)

    def program(config):
        model = make_model(config)
        return jax.jit(lambda params, mask: model.apply({"params": params}, **batch, head_mask=mask, capture=("attention",)))

    masked, pruned = program(config), program(smaller)
    ones = np.ones_like(masks)
    want, got = masked(params, masks), pruned(fewer, ones)
    np.testing.assert_allclose(got.logits, want.logits, atol=1e-5)
    assert np.abs(want.logits - masked(params, ones).logits).max() > 0.01
    # A removed head's map is 0, the others stay at their places; a mask leaves the weights that it multiplies as they were.
    maps = want.captured["attention"] * masks[:, None, :, None, None]
    np.testing.assert_allclose(got.captured["attention"], maps, atol=1e-6)
    # A pruned model takes a mask for the heads that are left.
    other = masks.copy()
    other[1, 2 if masks[1, 2] else 1] = 0
    np.testing.assert_allclose(pruned(fewer, other).logits, masked(params, other).logits, atol=1e-5)


@every_row
def test_parameters_are_fewer_as_the_config_says(name):
    config, heads = ROWS[name]
    params = parameters(config)
    smaller, fewer = prune_heads(config, params, heads)
    assert jax.tree.map(jnp.shape, abstract_params(make_model(smaller))[0]) == jax.tree.map(jnp.shape, fewer)
    removed, H, D = sum(map(len, heads.values())), config.head_width, config.embed_dim
    shared = removed * config.kv_heads // config.num_heads
    weights, biases = 2 * D * H * (removed + shared), H * (removed + 2 * shared) * config.bias
    assert count_params(config) - count_params(smaller) == weights + biases
    if config.window is None:
        saved = train_flops_per_token(config, T) - train_flops_per_token(smaller, T)
        assert saved == 6 * weights + 12 * removed * H * T


def test_twice_pruned_is_pruned_once_by_the_old_numbers():
    config, params = tiny("alibi", num_kv_heads=None), parameters(tiny("alibi", num_kv_heads=None))
    once = prune_heads(config, params, {0: [1, 3], 1: [0]})
    twice = prune_heads(*prune_heads(config, params, {0: [1]}), {0: [3], 1: [0]})
    assert once[0] == twice[0]
    jax.tree.map(np.testing.assert_array_equal, once[1], twice[1])
    assert prune_heads(config, params, {})[0] == config


@pytest.mark.parametrize("name", ["alibi", "gemma"])
def test_a_pruned_decoder_decodes_with_a_cache(name):
    config, heads = ROWS[name]
    config, params = prune_heads(config, parameters(config), heads)
    model, batch = make_model(config), packed_rows()
    full = jax.jit(lambda batch: model.apply({"params": params}, **batch).logits)(batch)
    call = jax.jit(lambda batch, cache: model.apply({"params": params}, **batch, cache=cache)._replace(captured={}))
    cache, pieces = init_cache(config, 4, 12), []
    assert [keys.shape[1] for keys in cache.keys] == [len(config.heads_kept(layer)) * config.kv_heads // 4 for layer in (0, 1)]
    for t in range(0, T, 4):
        output = call({key: value[:, t : t + 4] for key, value in batch.items()}, cache)
        cache = output.cache
        pieces.append(output.logits)
    real = np.asarray(batch["segment_ids"] != 0)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1)[real], full[real], atol=2e-5)


def test_a_pruned_model_on_an_explicit_mesh():
    config, heads = ROWS["alibi"]
    smaller, _ = prune_heads(config, parameters(config), heads)
    explicit_mesh_agrees(smaller, packed_rows(), T)


def test_a_model_over_images_is_pruned_by_its_encoder():
    config = VisionConfig(image_size=8, patch_size=4, num_labels=3, encoder=tiny_encoder("bert", position="none"))
    params = parameters(config)
    encoder, fewer = prune_heads(config.encoder, params, {1: [2]})
    smaller = VisionConfig(image_size=8, patch_size=4, num_labels=3, encoder=encoder)
    images, mask = np.sin(np.arange(384, dtype=np.float32)).reshape(2, 8, 8, 3), mask_of(encoder, {1: [2]})
    got = jax.jit(lambda images: make_model(smaller).apply({"params": fewer}, images).logits)(images)
    masked = jax.jit(lambda images, mask: make_model(config).apply({"params": params}, images, head_mask=mask).logits)
    np.testing.assert_allclose(got, masked(images, mask), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "heads", "message"),
    [
        ("gpt2", {2: [0]}, r"pruned_heads must be \(layer, head\) in 0..1 and 0..3: got \(2, 0\)"),
        ("gpt2", {0: [4]}, r"got \(0, 4\)"),
        ("gpt2", {1: [0, 1, 2, 3]}, "pruned_heads must leave a head in each layer: got all 4 of layer 1"),
        ("llama", {0: [1]}, r"whole groups of the 2 query heads that share a key/value head: \(0, 1\) also needs head 0"),
        ("olmo2", {0: [0, 1]}, "pruned_heads needs qk_norm=None or 'head'"),
    ],
)
def test_heads_that_cannot_go_are_refused(name, heads, message):
    config = tiny(name)
    with pytest.raises(ValueError, match=message):
        prune_heads(config, parameters(config), heads)


def test_a_head_is_removed_once():
    config = tiny("gpt2")
    config, params = prune_heads(config, parameters(config), {0: [1]})
    with pytest.raises(ValueError, match="head 1 of layer 0 was removed before"):
        prune_heads(config, params, {0: [1]})
    with pytest.raises(ValueError, match="pruned_heads must name each head once"):
        tiny("gpt2", pruned_heads=((0, 1), (0, 1)))
