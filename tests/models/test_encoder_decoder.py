"""A model that reads and writes: the reference's numbers, isolation of packed pairs, the cache, shared embeddings, the mesh."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.models import Encoded, EncoderDecoderConfig, init_cache, make_model, take_rows, unembed_decoder, unstack_layers
from tests.models import reference
from tests.models.options import PAIRS, tiny, tiny_pair
from tests.models.programs import SPLIT, T, exact, explicit_mesh_agrees, packed_rows, parameters, program

every_pair = pytest.mark.parametrize("name", PAIRS)
WRITTEN, DECODER_SPLIT = 9, 4
TIME, DECODER_TIME = np.arange(T), np.arange(WRITTEN)


def batch_of():
    """Pairs of rows; no token of a text read is one of a text written."""
    written = packed_rows(WRITTEN, DECODER_SPLIT, first=2 * T)
    return {**packed_rows(), **{f"decoder_{key}": value for key, value in written.items()}}


def run(config: EncoderDecoderConfig, row: int | None = None, when=None):
    weights = np.zeros((4, WRITTEN), np.float32)
    if row is not None:
        weights[row] = when
    return program(config)(parameters(config), batch_of(), weights, np.float32(0))


def logits_of(config: EncoderDecoderConfig):
    return np.asarray(run(config)[0][1][0])


@every_pair
def test_equals_the_reference(name):
    config, batch = tiny_pair(name), batch_of()
    rows = np.asarray(batch["tokens"][0]), np.asarray(batch["decoder_tokens"][0])
    want = reference.encoder_decoder(*rows, exact(parameters(config)), config)
    np.testing.assert_allclose(logits_of(config)[0], want, atol=3e-5, rtol=1e-5)


@every_pair
def test_packed_pairs_do_not_see_each_other_nor_later_tokens(name):
    """By gradient, exactly: through the encoder, the decoder and from one to the other."""
    config, batch = tiny_pair(name), batch_of()
    assert ("embed" in parameters(config)["decoder"]) == (not config.share_embeddings)

    def seen(row, when):
        gradient = run(config, row, when)[1]
        tables = [gradient["encoder" if config.share_embeddings else side]["embed"]["table"] for side in ("encoder", "decoder")]
        tokens = batch["tokens"][row], batch["decoder_tokens"][row]
        return [np.abs(np.asarray(table[ids])).max(axis=1) > 0 for table, ids in zip(tables, tokens, strict=True)]

    read, written = seen(0, DECODER_TIME < 4)
    assert read.all()
    np.testing.assert_array_equal(written, DECODER_TIME < 4)
    second = DECODER_TIME >= DECODER_SPLIT
    for when, reading in ((second, TIME >= SPLIT), (~second, TIME < SPLIT)):
        read, written = seen(1, when)
        np.testing.assert_array_equal(read, reading)
        np.testing.assert_array_equal(written, when)


@every_pair
def test_packed_equals_alone_padded_on_either_side(name):
    logits = logits_of(tiny_pair(name))
    np.testing.assert_allclose(logits[1, :DECODER_SPLIT], logits[2, :DECODER_SPLIT], atol=1e-5)
    np.testing.assert_allclose(logits[1, DECODER_SPLIT:], logits[3, DECODER_SPLIT:], atol=1e-5)


@every_pair
def test_cached_decoding_equals_the_full_forward(name):
    """The encoder's output is given in the first call alone; then the rows change places, as in beam search. Layers are
    stacked in two of the models and separate in one."""
    config, batch = tiny_pair(name), batch_of()
    model, params = make_model(config), parameters(config)
    want = logits_of(config)
    stacked = name != "bart"
    if not stacked:
        decoder = params["decoder"]
        layers = unstack_layers(decoder["layers"], config.decoder.num_layers)
        params = {**params, "decoder": {**decoder, "layers": layers}}
    apply = jax.jit(
        lambda batch, memory, cache: model.apply({"params": params}, **batch, memory=memory, cache=cache, method="decode")
        ._replace(captured={})
    )  # fmt: skip
    encode = jax.jit(lambda **batch: model.apply({"params": params}, **batch, method="encode").hidden)
    read = {key: batch[key] for key in ("tokens", "positions", "segment_ids")}
    memory = Encoded(encode(**read), batch["segment_ids"])

    def piece(start, rows):
        return {key: batch[f"decoder_{key}"][rows, start : start + 3] for key in read}

    same, moved = np.arange(4), np.asarray([3, 1, 1, 0])
    first = apply(piece(0, same), memory, init_cache(config.decoder, 4, 10, stacked=stacked))
    second = apply(piece(3, same), None, first.cache)
    third = apply(piece(6, moved), None, take_rows(second.cache, jnp.asarray(moved)))
    real = np.asarray(batch["decoder_segment_ids"] != 0)
    got = np.concatenate([first.logits, second.logits], axis=1)
    np.testing.assert_allclose(got[real[:, :6]], want[:, :6][real[:, :6]], atol=2e-5)
    np.testing.assert_allclose(third.logits[real[moved, 6:]], want[moved, 6:][real[moved, 6:]], atol=2e-5)
    assert isinstance(third.cache.memory.keys, tuple) == (not stacked)


@every_pair
def test_explicit_mesh_gives_the_same_value_and_gradient(name):
    explicit_mesh_agrees(tiny_pair(name), batch_of(), WRITTEN)


def test_outputs_beside_the_logits():
    """The encoder's own output, attention maps of all three kinds, and logits from the hidden states afterwards."""
    config = tiny_pair("bart")
    model, params, batch = make_model(config), parameters(config), batch_of()
    capture = ("hidden", "attention", "cross_attention")
    apply = jax.jit(
        lambda params, batch: [
            model.apply({"params": params}, **batch, capture=capture),
            model.apply({"params": params}, **batch, unembed=False).logits,
        ]
    )
    output, without = apply(params, batch)
    assert without is None
    assert output.encoder.captured["hidden"].shape == (3, 4, T, 32)
    assert output.encoder.captured["attention"].shape == (2, 4, 4, T, T)
    assert output.captured["attention"].shape == (2, 4, 4, WRITTEN, WRITTEN)
    assert output.captured["cross_attention"].shape == (2, 4, 4, WRITTEN, T)
    assert (output.captured["cross_attention"][:, 1, :, :DECODER_SPLIT, SPLIT:] == 0).all()
    np.testing.assert_allclose(unembed_decoder(config, params, output.hidden), output.logits, atol=1e-6)


def test_impossible_pairs_are_refused():
    good = tiny_pair("t5")
    for encoder in (dataclasses.replace(good.encoder, causal=True), tiny("gpt2", causal=False)):
        with pytest.raises(ValueError, match="encoder must have causal=False and head.kind='none'"):
            dataclasses.replace(good, encoder=encoder)
    for change in (dict(cross_attention=False), dict(causal=False)):
        with pytest.raises(ValueError, match="decoder must have cross_attention=True and causal=True"):
            dataclasses.replace(good, decoder=dataclasses.replace(good.decoder, **change))
    for change, message in (
        (dict(embed_dim=16), "embed_dim: got 32 and 16"),
        (dict(vocab_size=50), "vocab_size: got 48 and 50"),
    ):
        with pytest.raises(ValueError, match=f"share_embeddings needs an encoder and a decoder of the same {message}"):
            dataclasses.replace(good, decoder=dataclasses.replace(good.decoder, **change))


def test_a_decoder_without_the_encoders_output_is_refused():
    config = tiny_pair("t5")
    model, params, tokens = make_model(config), parameters(config), jnp.zeros((1, 2), jnp.int32)
    for cache in (None, init_cache(config.decoder, 1, 2)):
        with pytest.raises(ValueError, match="cross_attention needs memory, the encoder's output; with a cache, in the first"):
            jax.eval_shape(partial(model.apply, {"params": params}, method="decode"), tokens, cache=cache)
