"""Each step of sampling against a plain NumPy reference written from its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.inference import SamplingConfig, make_drawing, sample
from jaxllm.inference.sampling import (
    apply_min_p,
    apply_repetition_penalty,
    apply_temperature,
    apply_top_k,
    apply_top_p,
)

LOGITS = np.random.default_rng(0).normal(size=(6, 50), scale=2.0).astype(np.float32)


def softmax(row):
    e = np.exp(row - row.max())
    return e / e.sum()


def kept_by_reference(step, row):
    """Indices that a filter keeps, by sorting and counting one row."""
    order = np.argsort(-row, kind="stable")
    probs = softmax(row.astype(np.float64))
    if step is apply_top_k:
        return set(order[:7])
    if step is apply_top_p:
        total, kept = 0.0, set()
        for token in order:
            kept.add(token)
            total += probs[token]
            if total >= 0.7:
                break
        return kept
    return {token for token in order if probs[token] >= 0.2 * probs.max()}


@pytest.mark.parametrize(("step", "value"), [(apply_top_k, 7), (apply_top_p, 0.7), (apply_min_p, 0.2)])
def test_filters_keep_what_their_definition_keeps(step, value):
    got = np.asarray(step(jnp.asarray(LOGITS), value))
    for row, filtered in zip(LOGITS, got, strict=True):
        kept = kept_by_reference(step, row)
        assert 1 <= len(kept) < 50
        assert set(np.flatnonzero(np.isfinite(filtered))) == kept
        np.testing.assert_array_equal(filtered[list(kept)], row[list(kept)])


@pytest.mark.parametrize(("step", "value"), [(apply_top_k, 1), (apply_top_p, 1e-6), (apply_min_p, 1.0)])
def test_the_strictest_filter_leaves_the_likeliest(step, value):
    got = np.asarray(step(jnp.asarray(LOGITS), value))
    assert [np.flatnonzero(np.isfinite(row)).tolist() for row in got] == [[row.argmax()] for row in LOGITS]


@pytest.mark.parametrize(("step", "value"), [(apply_top_k, 50), (apply_top_k, 99), (apply_top_p, 1.0)])
def test_the_widest_filter_leaves_all(step, value):
    np.testing.assert_array_equal(step(jnp.asarray(LOGITS), value), LOGITS)


def test_a_probability_of_one_keeps_the_rarest_tokens_too():
    logits = jnp.linspace(0.0, -30.0, 50_000)[None]  # a float32 sum of these reaches 1 long before the end
    assert jnp.isfinite(apply_top_p(logits, 1.0)).all()


def test_filters_see_what_earlier_ones_left():
    two = apply_top_k(jnp.asarray(LOGITS), 2)
    assert np.isfinite(apply_top_p(two, 0.999999)).sum(axis=-1).tolist() == [2] * 6


def test_repetition_penalty():
    logits = jnp.asarray([[2.0, -2.0, 0.0, 3.0]])
    seen = jnp.asarray([[True, True, True, False]])
    np.testing.assert_array_equal(apply_repetition_penalty(logits, seen, 2.0), [[1.0, -4.0, 0.0, 3.0]])


def test_temperature_divides():
    np.testing.assert_allclose(apply_temperature(jnp.asarray(LOGITS), 0.3), LOGITS / np.float32(0.3), rtol=1e-6)


@pytest.mark.parametrize("temperature", [1e-6, 1e6])
def test_the_extremes_of_temperature_stay_finite(temperature):
    keys = jax.random.split(jax.random.key(0), 6)
    config = SamplingConfig(temperature=temperature, top_k=40, top_p=0.5, min_p=0.1)
    ids = sample(keys, 1e3 * jnp.asarray(LOGITS), make_drawing(config))
    assert (ids >= 0).all() and (ids < 50).all()
    assert temperature > 1 or ids.tolist() == LOGITS.argmax(-1).tolist()


@pytest.mark.parametrize("field", ["top_p", "min_p"])
def test_the_smallest_probability_of_all_leaves_a_token_to_draw(field):
    """1e-60 is 0 in float32, and no token reaches "less than nothing"."""
    keys = jax.random.split(jax.random.key(0), 6)
    ids = sample(keys, jnp.asarray(LOGITS), make_drawing(SamplingConfig(**{field: 1e-60})))
    free = sample(keys, jnp.asarray(LOGITS), make_drawing(SamplingConfig()))
    assert ids.tolist() == (LOGITS.argmax(-1) if field == "top_p" else free).tolist()


def test_numbers_beyond_the_range_of_32_bits_are_the_largest_there():
    drawing = make_drawing(SamplingConfig(temperature=1e60, top_k=10**15))
    assert np.isfinite(drawing.temperature) and drawing.top_k == 2**31 - 1
    logits = jnp.asarray(LOGITS)
    np.testing.assert_array_equal(apply_top_k(logits, drawing.top_k), logits)


def test_greedy_is_the_limit_of_small_temperatures():
    keys = jax.random.split(jax.random.key(0), 6)
    greedy = sample(keys, jnp.asarray(LOGITS), make_drawing(SamplingConfig(temperature=0.0)))
    nearly = sample(keys, jnp.asarray(LOGITS), make_drawing(SamplingConfig(temperature=1e-4)))
    assert greedy.tolist() == nearly.tolist() == LOGITS.argmax(-1).tolist()


@pytest.mark.parametrize(("options", "kept"), [({"top_k": 3}, 3), ({"top_p": 0.8}, 3), ({"min_p": 0.5}, 2)])
def test_draws_follow_the_probabilities_that_the_steps_leave(options, kept):
    """20,000 draws against the reference: first the repetition penalty, then the temperature, then the filter."""
    row = np.array([2.0, 1.0, 0.5, 0.0, -1.0], np.float32)
    seen = np.array([True, False, False, False, False])
    config = SamplingConfig(temperature=0.7, repetition_penalty=1.6, **options)
    draws = 20_000
    keys = jax.random.split(jax.random.key(1), draws)
    tile = lambda x: jnp.tile(jnp.asarray(x)[None], (draws, 1))  # noqa: E731
    ids = sample(keys, tile(row), make_drawing(config), tile(seen))
    logits = row.copy()
    logits[0] /= 1.6
    expected = softmax(logits[:kept] / 0.7)
    counts = np.bincount(np.asarray(ids), minlength=5)
    assert counts[kept:].sum() == 0
    np.testing.assert_allclose(counts[:kept] / draws, expected, atol=4 * 0.5 / draws**0.5)


def test_a_row_draws_the_same_in_any_batch():
    keys = jax.random.split(jax.random.key(2), 6)
    config = SamplingConfig(top_p=0.9)
    together = sample(keys, jnp.asarray(LOGITS), make_drawing(config)).tolist()
    alone = [sample(keys[i : i + 1], jnp.asarray(LOGITS[i : i + 1]), make_drawing(config)).tolist()[0] for i in range(6)]
    assert together == alone


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", 1e-7),
        ("temperature", float("nan")),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("min_p", -1.0),
        ("repetition_penalty", 0.0),
        ("seed", -1),
        ("stop", ("end", "")),
    ],
)
def test_bad_values_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"^{field} must"):
        SamplingConfig(**{field: value})
