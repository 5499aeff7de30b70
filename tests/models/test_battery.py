"""What every option of the decoder must keep: the reference's numbers, causality, packing, the cache, the mesh."""

import jax
import numpy as np
import pytest

from jaxllm.models import TransformerConfig, init_cache, make_model, unstack_layers
from tests.models import reference
from tests.models.options import OPTIONS, tiny
from tests.models.programs import SPLIT, T, exact, explicit_mesh_agrees, packed_rows, parameters, program

every_option = pytest.mark.parametrize("name", OPTIONS)
TIME = np.arange(T)


def batch_of(config: TransformerConfig):
    batch = packed_rows()
    if config.token_types is not None:
        batch["token_types"] = np.asarray(np.broadcast_to(TIME % 5 % config.token_types, (4, T)), np.int32)
    return batch


def run(config: TransformerConfig, rows=(), when=None):
    """The program's value, output and gradients for the hidden states of `rows` at the times `when`."""
    weights = np.zeros((4, T), np.float32)
    weights[list(rows)] = 0 if when is None else when
    return program(config)(parameters(config), batch_of(config), weights, np.float32(0))


def logits_of(config: TransformerConfig):
    return np.asarray(run(config)[0][1][0])


def seen(config: TransformerConfig, row: int, when):
    """How much the hidden states of a row at the times `when` depend on each of its tokens. The output matrix gets no
    gradient from hidden states, so the embedding's tells of attention alone."""
    gradient = np.asarray(run(config, [row], when)[1]["embed"]["table"])
    return np.abs(gradient[np.asarray(batch_of(config)["tokens"][row])]).max(axis=1)


@every_option
def test_equals_the_reference(name):
    config = tiny(name)
    batch = batch_of(config)
    types = None if config.token_types is None else np.asarray(batch["token_types"][0])
    want = reference.transformer(np.asarray(batch["tokens"][0]), exact(parameters(config)), config, types)[0]
    np.testing.assert_allclose(logits_of(config)[0], want, atol=3e-5, rtol=1e-5)


@every_option
def test_no_token_sees_a_later_one_or_another_document(name):
    """The gradient is exactly 0 there, and not 0 where a token is seen."""
    config = tiny(name)
    early, second = TIME < 5, TIME >= SPLIT
    of_early = seen(config, 0, early)
    assert (of_early[~early] == 0).all() and (of_early[early] > 0).all()
    of_second, of_first = seen(config, 1, second), seen(config, 1, ~second)
    assert (of_second[~second] == 0).all() and (of_second[second] > 0).all()
    assert (of_first[second] == 0).all() and (of_first[~second] > 0).all()


@every_option
def test_packed_equals_alone_padded_on_either_side(name):
    logits = logits_of(tiny(name))
    np.testing.assert_allclose(logits[1, :SPLIT], logits[2, :SPLIT], atol=1e-5)
    np.testing.assert_allclose(logits[1, SPLIT:], logits[3, SPLIT:], atol=1e-5)


@every_option
def test_cached_decoding_equals_the_full_forward(name):
    config = tiny(name)
    model, params, batch = make_model(config), parameters(config), batch_of(config)
    stacked = config.layer_loop == "scan"
    if not stacked:
        params = {**params, "layers": unstack_layers(params["layers"], config.num_layers)}
    call = jax.jit(lambda batch, cache: model.apply({"params": params}, **batch, cache=cache)._replace(captured={}))
    cache, pieces = init_cache(config, 4, 16, stacked=stacked), []
    for t in range(0, T, 3):
        output = call({key: value[:, t : t + 3] for key, value in batch.items()}, cache)
        cache = output.cache
        pieces.append(output.logits)
    real = np.asarray(batch["segment_ids"] != 0)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1)[real], logits_of(config)[real], atol=2e-5)


@every_option
def test_explicit_mesh_gives_the_same_value_and_gradient(name):
    config = tiny(name)
    explicit_mesh_agrees(config, batch_of(config), T)
