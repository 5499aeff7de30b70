"""Virtual tokens: what a model computes behind them, by the definition of each method, with the cache, packed and on meshes."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.finetune import PrefixTuning, PromptTuning, PTuning, adapt, begin_params, packs
from jaxllm.finetune.ptuning import bidirectional_lstm
from jaxllm.models import (
    EncoderDecoderConfig,
    HeadConfig,
    Transformer,
    VisionConfig,
    encoded,
    label_logits,
    make_model,
    overlay,
    partition,
    paths,
)
from jaxllm.sharding import MeshConfig, batch_sharding, make_mesh, replicated, shardings_for, use_mesh
from tests.models.options import tiny, tiny_encoder, tiny_pair
from tests.models.programs import SPLIT, T, measure, packed_rows, parameters, spread
from tests.quick import some

N = 3
PREFIX, PROMPT = PrefixTuning(tokens=N, initialization="random"), PromptTuning(tokens=N)
NETWORKS = {
    "prefix": PrefixTuning(tokens=N, projection=True, hidden=6),
    "mlp": PTuning(tokens=N, hidden=6),
    "lstm": PTuning(tokens=N, hidden=6, encoder="lstm"),
}
both = pytest.mark.parametrize("method", [PREFIX, PROMPT], ids=["prefix", "prompt"])
DECODERS = ("gpt2", "llama", "alibi", "gemma", "t5", "relative_key_query", "embed_norm")
ENCODERS = ("bert", "modernbert", "relative_bert")


def begun(config, method, key=0):
    """The adapted model, and its parameters: those of the model, and the method's, larger than at first."""
    model, base = adapt(make_model(config), method), parameters(config)
    made = jax.jit(lambda key, base: partition(begin_params(model, key, base), _is_own)[0])(jax.random.key(key), base)
    return model, overlay(base, made)


def _is_own(path):
    return not {"prefix", "prompt"}.isdisjoint(path.split("/"))


@cache
def measured(config, method):
    """Of one full call: logits of the packed rows; and of three calls with a cache that follow each other."""
    model, params = begun(config, method)
    batch = packed_rows()

    def apply(params, batch):
        full = model.apply({"params": params}, **batch).logits
        cache, pieces = model.begin_cache(params, 4, T), []
        for start in range(0, T, T // 2):
            piece = {name: array[:, start : start + T // 2] for name, array in batch.items()}
            out = model.apply({"params": params}, **piece, cache=cache)
            cache, pieces = out.cache, [*pieces, out.logits]
        return full, jnp.concatenate(pieces, axis=1)

    return model, params, [np.asarray(found) for found in jax.jit(apply)(params, batch)]


def by_definition(config, params, row):
    """Hidden states of one text of a model whose vocabulary has the virtual tokens, too."""
    inner = params["encoder"] if isinstance(config, EncoderDecoderConfig) else params
    stack = config.encoder if isinstance(config, EncoderDecoderConfig) else config
    table = jnp.concatenate([inner["embed"]["table"], inner["prompt"]["table"] / (stack.embed_scale or 1.0)])
    wider = dataclasses.replace(stack, vocab_size=stack.vocabulary + N, head=HeadConfig(kind="none"))
    tokens = np.concatenate([stack.vocabulary + np.arange(N), row])[None].astype(np.int32)
    return hidden_of(Transformer(wider), {**inner, "embed": {"table": table}}, tokens)[0, N:]


def hidden_of(model, params, tokens):
    return jax.jit(lambda params, tokens: model.apply({"params": params}, tokens).hidden)(params, tokens)


@both
@pytest.mark.parametrize("name", some(DECODERS, ["llama", "gpt2", "alibi"]))
def test_cached_decoding_equals_the_full_forward(name, method):
    """Padded and packed rows among them."""
    _, _, (full, pieces) = measured(tiny(name), method)
    real = packed_rows()["segment_ids"] != 0
    np.testing.assert_allclose(pieces[real], full[real], atol=1e-5, rtol=1e-5)


@both
@pytest.mark.parametrize("name", DECODERS)
def test_packed_rows_equal_rows_alone(name, method):
    """Padded on either side; what a text is given differs from what the model alone gives."""
    logits = measured(tiny(name), method)[2][0]
    np.testing.assert_allclose(logits[1, :SPLIT], logits[2, :SPLIT], atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(logits[1, SPLIT:], logits[3, SPLIT:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma", "embed_norm"])
def test_a_prompt_is_tokens_that_the_vocabulary_does_not_have(name):
    config = tiny(name)
    model, params, _ = measured(config, PROMPT)
    row = packed_rows()["tokens"][0]
    got = hidden_of(model, params, row[None])[0]
    np.testing.assert_allclose(got, by_definition(config, params, row), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_reads_prompt_and_text_together(name):
    """By the definition, and the same for a row that is padded; given positions count from the text's beginning."""
    config = tiny_encoder(name)
    model, params = begun(config, PROMPT)
    row = packed_rows()["tokens"][0]
    want = by_definition(config, params, row)
    padded = np.stack([np.pad(row, (0, 1)), np.pad(row, (1, 0))])
    places = np.arange(T + 1)
    given = {"segment_ids": np.stack([places < T, places > 0]), "positions": np.stack([places, np.maximum(places - 1, 0)])}
    given = {name: array.astype(np.int32) for name, array in given.items()}
    out = jax.jit(lambda params, tokens, given: model.apply({"params": params}, tokens, **given))(params, padded, given)
    assert out.hidden.shape == (2, T + 1, 32) and out.logits.shape == (2, T + 1, 48)
    for got in (out.hidden[0, :T], out.hidden[1, 1:]):
        np.testing.assert_allclose(got, want, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("read", ["mean", "first", "last"])
def test_a_label_read_inside_the_model_is_the_one_read_afterwards(read):
    """The mean is that of the text alone."""
    config = tiny_encoder("bert", head=HeadConfig(kind="sequence", num_labels=3, read=read))
    model, params = begun(config, PROMPT)
    batch = {"tokens": packed_rows()["tokens"][:2], "segment_ids": np.asarray([[1] * T, [0] + [1] * (T - 1)], np.int32)}
    out = jax.jit(lambda params, batch: model.apply({"params": params}, **batch))(params, batch)
    afterwards = label_logits(config, params, out.hidden, jnp.asarray(batch["segment_ids"]))
    place = {"mean": [0, 1], "first": [0, 1], "last": [T - 1, T - 1]}[read]
    np.testing.assert_allclose(out.logits, afterwards[np.arange(2), place], atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_with_a_prefix_takes_packed_rows(name):
    model, params = begun(tiny_encoder(name), PREFIX)
    run = jax.jit(lambda params, batch: model.apply({"params": params}, **batch).hidden)
    hidden = np.asarray(run(params, packed_rows()))
    np.testing.assert_allclose(hidden[1, :SPLIT], hidden[2, :SPLIT], atol=1e-5)
    np.testing.assert_allclose(hidden[1, SPLIT:], hidden[3, SPLIT:], atol=1e-5)
    other = {**params, "prefix": jax.tree.map(lambda x: x + 1.0, params["prefix"])}
    assert np.abs(np.asarray(run(other, packed_rows())) - hidden).max() > 1e-2


@pytest.mark.parametrize(("name", "method"), [("gpt2", PREFIX), ("llama", PROMPT)], ids=["prefix", "prompt"])
def test_a_token_sees_virtual_and_earlier_tokens_alone(name, method):
    """By gradient, exactly."""
    config = tiny(name, layer_loop="scan", remat="block")
    model, params = begun(config, method)
    batch, weights = packed_rows(), np.zeros((4, T), np.float32)
    weights[1, SPLIT + 1] = 1
    gradient = jax.jit(measure(model))(params, batch, weights, np.float32(0))[1]
    seen = np.abs(np.asarray(gradient["embed"]["table"])).max(axis=1) > 0
    assert seen[batch["tokens"][1]].tolist() == [SPLIT <= place <= SPLIT + 1 for place in range(T)]
    own = partition(gradient, _is_own)[0]
    assert all((np.abs(np.asarray(leaf)) > 0).mean() > 0.9 for leaf in jax.tree.leaves(own))


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_prefix_of_a_pair_begins_as_activations(name):
    """Of tokens that the decoder looks up where the encoder does."""
    model, params = begun(tiny_pair(name), PrefixTuning(tokens=N))
    keys = np.asarray(params["decoder"]["prefix"]["keys"])
    assert keys.shape[2] == N and np.isfinite(keys).all() and (keys != 0).any()


@both
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_pair_with_virtual_tokens(name, method):
    """Cached decoding, from the encoder's output once made, equals the full forward; a prompt is by its definition."""
    config = tiny_pair(name)
    model, params = begun(config, method)
    read, written = packed_rows()["tokens"][:1], packed_rows()["tokens"][1:2, :6]

    def apply(params, read, written):
        full = model.apply({"params": params}, read, written)
        memory = encoded(model.apply({"params": params}, read, method="encode").hidden, jnp.ones_like(read))
        cache, pieces = model.begin_cache(params, 1, 6), []
        for start in (0, 3):
            given = {"memory": memory if start == 0 else None, "cache": cache, "method": "decode"}
            out = model.apply({"params": params}, written[:, start : start + 3], **given)
            cache, pieces = out.cache, [*pieces, out.logits]
        return full.logits, full.encoder.hidden, jnp.concatenate(pieces, axis=1)

    logits, hidden, pieces = jax.jit(apply)(params, read, written)
    np.testing.assert_allclose(pieces, logits, atol=1e-5, rtol=1e-5)
    if method is PROMPT:
        assert hidden.shape[1] == N + T
        np.testing.assert_allclose(hidden[0, N:], by_definition(config, params, read[0]), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_a_network_has_made_can_stand_alone(name):
    config, method = tiny("llama"), NETWORKS[name]
    model, params = begun(config, method)
    settled = jax.jit(method.settle)(params)
    own = {"prefix": ("prefix/keys", "prefix/values")}.get(name, ("prompt/table",))
    assert paths(partition(settled, _is_own)[0]) == own
    run = jax.jit(lambda params, tokens: model.apply({"params": params}, tokens).logits)
    tokens = packed_rows()["tokens"]
    np.testing.assert_allclose(run(settled, tokens), run(params, tokens), atol=1e-5)
    assert all(method.learns(path) for path in paths(partition(params, _is_own)[0]))
    assert not method.learns("embed/table") and method.learns("head/classifier/kernel") and method.merge(params) is None


def test_the_lstm_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    shapes = {"input": (5, 4, 2), "recurrent": (2, 4, 2), "bias": (4, 2)}
    own = {side: {name: rng.normal(size=shape) for name, shape in shapes.items()} for side in ("forward", "backward")}
    x, sigmoid = rng.normal(size=(6, 5)), lambda z: 1 / (1 + np.exp(-z))
    want = np.zeros((6, 4))
    for side, order, columns in (("forward", range(6), slice(0, 2)), ("backward", range(5, -1, -1), slice(2, 4))):
        hidden, cell, w = np.zeros(2), np.zeros(2), own[side]
        for place in order:
            gates = [x[place] @ w["input"][:, g] + hidden @ w["recurrent"][:, g] + w["bias"][g] for g in range(4)]
            cell = sigmoid(gates[1]) * cell + sigmoid(gates[0]) * np.tanh(gates[2])
            hidden = sigmoid(gates[3]) * np.tanh(cell)
            want[place, columns] = hidden
    got = bidirectional_lstm(jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), own), jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("method", [PrefixTuning(tokens=N), PROMPT, *NETWORKS.values()], ids=repr)
def test_a_fresh_one_is_a_matter_of_the_seed(method):
    config = tiny("gemma")
    first, again, other = (partition(begun(config, method, key)[1], _is_own)[0] for key in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    assert not any(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True))


def test_prompts_begin_as_tokens():
    """Sampled and of a text, repeated, cut, and scaled as the model scales its tokens; and a prefix as they would be cached."""
    config = tiny("gemma")
    table = 5.5 * np.asarray(parameters(config)["embed"]["table"])
    for ids, want in (((7, 9), [7, 9, 7]), ((1, 2, 3, 4), [1, 2, 3])):
        method = PromptTuning(tokens=N, initialization="text", text="irrelevant", text_ids=ids)
        np.testing.assert_allclose(begun(config, method)[1]["prompt"]["table"], table[want], rtol=1e-6)
    sampled = np.asarray(begun(config, PROMPT)[1]["prompt"]["table"])
    assert np.abs(sampled[:, None] - table[None]).max(axis=2).min(axis=1).max() < 1e-6

    class Words:
        def encode(self, text):
            return [len(word) for word in text.split()]

    method = PromptTuning(tokens=N, initialization="text", text="a bb").with_tokenizer(Words())
    assert method.text_ids == (1, 2) and method.with_tokenizer(None) is method
    model, params = begun(config, PrefixTuning(tokens=N))
    cache = model.begin_cache(params, 2, 5)
    assert cache.keys.shape == (2, 2, 2, N + 5, 8) and cache.length == N
    assert cache.segment_ids.tolist() == [[-1] * N + [0] * 5] * 2
    np.testing.assert_array_equal(cache.keys[:, 1, :, :N], params["prefix"]["keys"])


@pytest.mark.parametrize(
    ("name", "method", "explicit"),
    [("llama", NETWORKS["prefix"], True), ("llama", PROMPT, True), ("bert", PROMPT, True), ("llama", PREFIX, False)],
    ids=["network", "prompt", "encoder", "prefix"],
)
def test_meshes_give_the_same_value_and_gradients(name, method, explicit):
    config = tiny(name) if name == "llama" else tiny_encoder(name)
    model, params = begun(config, method)
    batch, weights, one = packed_rows(), spread((4, T)), np.float32(1)
    if name != "llama":
        batch["segment_ids"] = np.minimum(batch["segment_ids"], 1)
    (want, _), want_grad = jax.jit(measure(model))(params, batch, weights, one)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2, explicit=explicit))
    described = jax.eval_shape(lambda key: model.init(key, *model.example_inputs()), jax.random.key(0))
    placed, rows = jax.device_put(params, shardings_for(described["params"], described["axes"], mesh)), batch_sharding(mesh)
    with use_mesh(mesh):
        given = jax.device_put(batch, rows), jax.device_put(weights, rows), jax.device_put(one, replicated(mesh))
        (got, _), got_grad = jax.jit(measure(model))(placed, *given)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for (path, b), a in zip(jax.tree_util.tree_leaves_with_path(want_grad), jax.tree.leaves(got_grad), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * max(1.0, float(jnp.abs(b).max())), err_msg=jax.tree_util.keystr(path))


def test_what_cannot_be_is_refused():
    text, plain = tiny("gpt2"), tiny("gpt2", causal=False, position="none")
    image = VisionConfig(image_size=8, patch_size=4, num_labels=2, encoder=plain)
    with pytest.raises(ValueError, match="method PromptTuning is for models of text: this one is of images; take LoRA"):
        adapt(make_model(image), PROMPT)
    with pytest.raises(ValueError, match="method.tokens must leave room in the model's context of 16 tokens: got 16"):
        adapt(make_model(text), PTuning(tokens=16))
    for method in (PTuning, PrefixTuning):
        with pytest.raises(ValueError, match="method.hidden must be at least 1: got 0"):
            method(hidden=0)
    with pytest.raises(ValueError, match="method.text_ids must be numbers of tokens, from 0: got -1"):
        PromptTuning(initialization="text", text_ids=(3, -1))
    with pytest.raises(ValueError, match="method.tokens must be at least 1: got 0"):
        PrefixTuning(tokens=0)
    with pytest.raises(ValueError, match="method PrefixTuning needs a model with all its heads"):
        adapt(make_model(dataclasses.replace(text, pruned_heads=((0, 1),))), PREFIX)
    for options in ({"initialization": "text"}, {"text": "a"}):
        with pytest.raises(ValueError, match="method.text is for method.initialization='text', which needs it: got"):
            PromptTuning(**options)
    with pytest.raises(ValueError, match="method.text must have been read by the model's tokenizer"):
        begun(text, PromptTuning(initialization="text", text="a", tokens=N))
    model, params = begun(text, PREFIX)
    with pytest.raises(ValueError, match="3 virtual tokens and 14 tokens must fit into the model's context of 16: shorten"):
        model.apply({"params": params}, jnp.zeros((1, 14), jnp.int32))
    assert [packs(PROMPT, config) for config in (text, tiny_encoder("bert"), tiny_pair("t5"))] == [True, False, False]
    assert all(packs(PREFIX, config) for config in (text, tiny_encoder("bert"), tiny_pair("t5")))
