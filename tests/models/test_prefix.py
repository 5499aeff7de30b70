"""Prefix tokens see each other both ways, and later ones stay causal: by the reference, by gradient, and with the cache."""

import jax
import numpy as np
import pytest

from jaxllm.models import init_cache, make_model
from tests.models import reference
from tests.models.options import tiny
from tests.models.programs import SPLIT, T, exact, packed_rows, parameters, program

rows = pytest.mark.parametrize("name", ["gpt2", "gemma"])
TIME, PREFIX = np.arange(T), np.zeros((4, T), bool)
PREFIX[0, :4] = PREFIX[1, :3] = PREFIX[1, SPLIT : SPLIT + 2] = PREFIX[2, :3] = PREFIX[3, SPLIT : SPLIT + 2] = True


def run(config, row=None, when=None):
    weights = np.zeros((4, T), np.float32)
    if row is not None:
        weights[row] = when
    batch = {**packed_rows(), "prefix": PREFIX}
    return program(config)(parameters(config), batch, weights, np.float32(0))


@rows
def test_equals_the_reference_and_packed_equals_alone(name):
    config = tiny(name)
    logits = np.asarray(run(config)[0][1][0])
    tokens = np.asarray(packed_rows()["tokens"][0])
    want = reference.transformer(tokens, exact(parameters(config)), config, prefix=PREFIX[0])[0]
    np.testing.assert_allclose(logits[0], want, atol=3e-5, rtol=1e-5)
    np.testing.assert_allclose(logits[1, :SPLIT], logits[2, :SPLIT], atol=1e-5)
    np.testing.assert_allclose(logits[1, SPLIT:], logits[3, SPLIT:], atol=1e-5)


def test_who_sees_whom():
    """The first token sees the prefix; one after the prefix sees it and what is between; exactly nothing else."""
    config, tokens = tiny("gpt2"), np.asarray(packed_rows()["tokens"])

    def seen(row, time):
        gradient = np.asarray(run(config, row, TIME == time)[1]["embed"]["table"])
        return np.flatnonzero(np.abs(gradient[tokens[row]]).max(axis=1)).tolist()

    assert seen(0, 0) == seen(0, 3) == [0, 1, 2, 3]
    assert seen(0, 5) == [0, 1, 2, 3, 4, 5]
    assert seen(1, 0) == [0, 1, 2] and seen(1, 4) == [0, 1, 2, 3, 4]
    assert seen(1, SPLIT) == [7, 8] and seen(1, 9) == [7, 8, 9]


def test_with_the_cache():
    """The prefix comes in one call; later calls are causal and still see it."""
    config = tiny("gemma")
    model, params, batch = make_model(config), parameters(config), packed_rows()
    call = jax.jit(lambda batch, cache: model.apply({"params": params}, **batch, cache=cache)._replace(captured={}))
    first = call({**{key: value[:, :9] for key, value in batch.items()}, "prefix": PREFIX[:, :9]}, init_cache(config, 4, T))
    rest = call({key: value[:, 9:] for key, value in batch.items()}, first.cache)
    real = np.asarray(batch["segment_ids"] != 0)
    got = np.concatenate([first.logits, rest.logits], axis=1)
    np.testing.assert_allclose(got[real], np.asarray(run(config)[0][1][0])[real], atol=2e-5)
