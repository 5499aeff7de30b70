"""Encoders and their heads: the reference's numbers, both directions, padding, packing, head masks, the mesh."""

import jax
import numpy as np
import pytest

from jaxllm.models import HeadConfig, TransformerConfig, make_model
from tests.models import reference
from tests.models.options import ENCODERS, tiny_encoder
from tests.models.programs import SPLIT, T, exact, explicit_mesh_agrees, packed_rows, parameters, program

every_encoder = pytest.mark.parametrize("name", ENCODERS)
TIME = np.arange(T)


def batch_of(config: TransformerConfig):
    batch = packed_rows()
    if config.token_types is not None:
        batch["token_types"] = np.asarray(np.broadcast_to(TIME % 3 % config.token_types, (4, T)), np.int32)
    return batch


def run(config: TransformerConfig, row: int | None = None, when=None):
    weights = np.zeros((4, T), np.float32)
    if row is not None:
        weights[row] = when
    return program(config)(parameters(config), batch_of(config), weights, np.float32(0))


@every_encoder
def test_equals_the_reference(name):
    config = tiny_encoder(name)
    batch = batch_of(config)
    types = None if config.token_types is None else np.asarray(batch["token_types"][0])
    want = reference.transformer(np.asarray(batch["tokens"][0]), exact(parameters(config)), config, types)
    logits, hidden = run(config)[0][1]
    np.testing.assert_allclose(hidden[0], want[1], atol=3e-5, rtol=1e-5)
    np.testing.assert_allclose(logits[0], want[0], atol=3e-5, rtol=1e-5)


@every_encoder
def test_a_token_sees_both_ways_within_its_document_alone(name):
    """And with a window, as far as two layers reach: exactly 0 beyond."""
    config = tiny_encoder(name)

    def seen(row, when):
        gradient = np.asarray(run(config, row, when)[1]["embed"]["table"])
        return np.abs(gradient[np.asarray(batch_of(config)["tokens"][row])]).max(axis=1)

    reach = T if config.window is None or config.full_attention_layers else 2 * (config.window - 1)
    np.testing.assert_array_equal(seen(0, TIME == 4) > 0, abs(TIME - 4) <= reach)
    second = TIME >= SPLIT
    np.testing.assert_array_equal(seen(1, second) > 0, second)
    np.testing.assert_array_equal(seen(1, ~second) > 0, ~second)


@every_encoder
def test_packing_and_padding_on_either_side_change_nothing(name):
    logits = np.asarray(run(tiny_encoder(name))[0][1][0])
    np.testing.assert_allclose(logits[1, :SPLIT], logits[2, :SPLIT], atol=1e-5)
    np.testing.assert_allclose(logits[1, SPLIT:], logits[3, SPLIT:], atol=1e-5)


@every_encoder
def test_explicit_mesh_gives_the_same_value_and_gradient(name):
    config = tiny_encoder(name)
    explicit_mesh_agrees(config, batch_of(config), T)


HEADS = {
    "sequence": (HeadConfig(kind="sequence", num_labels=4), (4, 4)),
    "sequence_pooler": (HeadConfig(kind="sequence", num_labels=4, pooler=True), (4, 4)),
    "tokens": (HeadConfig(kind="tokens", num_labels=6), (4, T, 6)),
    "span": (HeadConfig(kind="span"), (4, T, 2)),
    "pooler": (HeadConfig(kind="none", pooler=True), None),
    "none": (HeadConfig(kind="none"), None),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads(name):
    """Shapes, the reference's numbers, and the text's first token found behind padding on the left, be it the only one."""
    head, shape = HEADS[name]
    config = tiny_encoder("bert", head=head, num_layers=1)
    model, params, batch = make_model(config), parameters(config), batch_of(config)
    batch["segment_ids"][1] = TIME == 0
    assert ("head" in params) == (name != "none") and "unembed" not in params
    output = jax.jit(lambda batch: model.apply({"params": params}, **batch)._replace(captured={}))(batch)
    for row, real in ((0, TIME >= 0), (1, TIME == 0), (2, TIME < SPLIT), (3, TIME >= SPLIT)):
        tokens, types = (np.asarray(batch[key][row])[real] for key in ("tokens", "token_types"))
        logits, hidden, pooled = reference.transformer(tokens, exact(params), config, types)
        np.testing.assert_allclose(output.hidden[row][real], hidden, atol=3e-5)
        if head.pooler:
            np.testing.assert_allclose(output.pooled[row], pooled, atol=3e-5)
        if logits is not None:
            np.testing.assert_allclose(output.logits[row] if logits.ndim == 1 else output.logits[row][real], logits, atol=3e-5)
    assert shape is None if output.logits is None else output.logits.shape == shape
    assert (output.pooled is None) == (not head.pooler)


def test_heads_on_an_explicit_mesh():
    config = tiny_encoder("bert", head=HeadConfig(kind="sequence", num_labels=4, pooler=True), num_layers=1)
    explicit_mesh_agrees(config, batch_of(config), T)


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_a_head_mask_removes_heads(name):
    """Ones change nothing, to the bit; 0 is the removal of a head's rows of the output projection."""
    config = tiny_encoder(name)
    model, params, batch = make_model(config), parameters(config), batch_of(config)
    forward = jax.jit(lambda params, mask, batch: model.apply({"params": params}, **batch, head_mask=mask).hidden)
    mask = np.ones((2, 4), np.float32)
    without = program(config)(params, batch, np.zeros((4, T), np.float32), np.float32(0))[0][1][1]
    np.testing.assert_allclose(forward(params, mask, batch), without, atol=1e-6)
    mask[0, 1] = mask[1, 3] = 0
    got = forward(params, mask, batch)
    assert np.abs(got - without).max() > 0.01
    output = params["layers"]["attention"]["output"]
    removed = {**output, "kernel": output["kernel"] * mask[:, :, None, None]}
    layers = {**params["layers"], "attention": {**params["layers"]["attention"], "output": removed}}
    np.testing.assert_allclose(got, forward({**params, "layers": layers}, np.ones((2, 4), np.float32), batch), atol=1e-6)
    masked = reference.transformer(
        np.asarray(batch["tokens"][0]), exact(params), config,
        np.asarray(batch["token_types"][0]) if config.token_types else None, head_mask=mask,
    )  # fmt: skip
    np.testing.assert_allclose(got[0], masked[1], atol=3e-5)
