"""Prefix and prompt tuning against files of PEFT and what it makes of them, as scripts/oracle/peft_methods.py writes them:
logits with padding on either side, and the ids that greedy search and a beam search of 4 write."""

from functools import cache
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxllm.finetune import PrefixTuning, PromptTuning, adapt
from jaxllm.inference import SamplingConfig, beam_search, encode_sources, stream_tokens
from jaxllm.models import overlay
from jaxllm.models.head import label_logits
from jaxllm.recipe import load

FOLDER = Path(__file__).parent / "golden" / "peft"
NEW, TOKENS = 7, 3
METHODS = {"prefix": PrefixTuning(tokens=TOKENS), "prompt": PromptTuning(tokens=TOKENS)}
NAMES = {"tokens": "tokens", "mask": "segment_ids", "positions": "positions", "token_types": "token_types",
         "decoder_tokens": "decoder_tokens"}  # fmt: skip
CASES = [(method, kind) for method in METHODS for kind in ("gpt2", "llama", "bert", "t5")]


@cache
def opened(method, kind):
    """The model with PEFT's numbers, its parameters, and what PEFT makes of it."""
    with pytest.warns(UserWarning, match="no tokenizer"):
        base = load(FOLDER / "base" / kind)
    folder = FOLDER / f"{method}--{kind}"
    stored, config = load_file(folder / "adapter_model.safetensors"), METHODS[method].stack(base.config)
    if method == "prompt":
        own = {"table": stored["prompt_embeddings"][:TOKENS]}  # of an encoder-decoder, PEFT has as many again that nobody reads
    else:
        L, K, H = config.num_layers, config.kv_heads, config.head_width
        parts = stored["prompt_embeddings"].reshape(TOKENS, 2 * L, K, H).transpose(1, 2, 0, 3)
        # Of an encoder-decoder, PEFT takes every other pair, and all of them twice.
        own = {"keys": parts[::2], "values": parts[1::2]} if kind != "t5" else {
            "keys": np.concatenate([parts, parts])[::4], "values": np.concatenate([parts, parts])[1::4]
        }  # fmt: skip
    params = overlay(base.params, METHODS[method].outer(base.config, own))
    if kind == "bert":
        head = {"kernel": stored["base_model.classifier.weight"].T, "bias": stored["base_model.classifier.bias"]}
        params = overlay(params, {"head": {"classifier": head}})
    return adapt(base.model, METHODS[method]), jax.tree.map(jnp.asarray, params), dict(np.load(folder / "expected.npz"))


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_logits(method, kind):
    model, params, expected = opened(method, kind)
    run = jax.jit(lambda given: model.apply({"params": params}, **given).logits)
    batches = {ours: expected[theirs] for theirs, ours in NAMES.items() if theirs in expected}
    got = np.stack([run({name: array[number] for name, array in batches.items()}) for number in range(3)])
    want = expected["logits"][:, :, -got.shape[2] :] if kind != "bert" else expected["logits"]
    real = expected["mask"] != 0 if kind in ("gpt2", "llama") else np.ones(got.shape[:-1], bool)
    np.testing.assert_allclose(got[real], want[real], atol=1e-4)
    assert np.abs(want - expected["base_logits"]).max() > 0.5


@pytest.mark.parametrize("method", METHODS)
def test_a_label_can_be_read_from_the_hidden_states_afterwards(method):
    """As a loss does, from each text's first token."""
    model, params, expected = opened(method, "bert")
    given = {ours: expected[theirs][0] for theirs, ours in NAMES.items() if theirs in expected}
    hidden = jax.jit(lambda params, given: model.apply({"params": params}, **given).hidden)(params, given)
    logits = label_logits(model.config, params, hidden, jnp.asarray(given["segment_ids"]))
    np.testing.assert_allclose(logits[:, 0], expected["logits"][0], atol=1e-4)


def with_padding_counted(pad_prompts):
    """Positions of PEFT in generation with a prompt: of a row padded on the left it counts the padding, too, so that what it
    writes depends on the rows beside it."""

    def pad(*given):
        padded = pad_prompts(*given)
        places = np.broadcast_to(np.arange(padded.tokens.shape[1], dtype=np.int32), padded.tokens.shape)
        return padded._replace(positions=np.ascontiguousarray(places))

    return pad


@pytest.mark.parametrize("rows", ["full", "padded"])
@pytest.mark.parametrize(("method", "kind"), [case for case in CASES if case[1] != "bert"])
def test_generated_ids(method, kind, rows, monkeypatch):
    model, params, expected = opened(method, kind)
    mask = expected["padded_mask"] if rows == "padded" else np.ones_like(expected["full"])
    prompts = [ids[real != 0].tolist() for ids, real in zip(expected[rows], mask, strict=True)]
    given = {}
    if kind == "t5":
        given["memory"], prompts = encode_sources(model, params, prompts), [[0]] * len(prompts)
    elif method == "prompt" and rows == "padded":
        for module in map(import_module, ("jaxllm.inference.beam", "jaxllm.inference.generate")):
            monkeypatch.setattr(module, "pad_prompts", with_padding_counted(module.pad_prompts))
    drawn = stream_tokens(model, params, prompts, SamplingConfig(max_tokens=NEW, temperature=0.0), **given)
    np.testing.assert_array_equal(np.concatenate(list(drawn)).T, expected[f"{rows}_greedy"])
    best = beam_search(model, params, prompts, SamplingConfig(max_tokens=NEW, num_beams=4, temperature=0.0), **given)
    np.testing.assert_array_equal(best, expected[f"{rows}_beam"])
