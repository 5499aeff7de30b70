"""Generation with a prefix: the prompt is read from both sides, and what is written sees it causally."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxllm
from jaxllm.cli import run
from jaxllm.inference import SamplingConfig, beam_search, decode_params, generate, stream_tokens
from jaxllm.inference.decode import pad_prompts, read_prompts
from jaxllm.inference.writer import unembed, write_tokens
from jaxllm.models import EncoderDecoder, EncoderDecoderConfig, HeadConfig, TransformerConfig
from jaxllm.recipe import convert
from jaxllm.training.objectives import PrefixLM
from tests.inference.test_generate import CONTEXT, Letters, make
from tests.recipe import tiny

PROMPTS = [[1, 2, 3, 9], [4], list(range(12))]
OPTIONS = [{}, {"position": "rotary", "num_kv_heads": 1, "norm": "rms_norm", "window": 9, "layer_loop": "unroll"}]


def full_forward(model, params):
    """Logits of a row, in one call with the prefix's mask; the row is padded on the right, which nothing sees."""
    forward = jax.jit(
        lambda tokens, real, prefix: model.apply({"params": params}, tokens, segment_ids=real, prefix=prefix).logits
    )

    def logits(tokens, prefix_len):
        row, places = np.zeros((1, CONTEXT), np.int32), np.arange(CONTEXT)[None]
        row[0, : len(tokens)] = tokens
        return np.asarray(forward(row, (places < len(tokens)).astype(np.int32), places < prefix_len))[0, : len(tokens)]

    return logits


def greedy_by_full_forwards(model, params, prompt, count):
    """The definition. Where the context has moved, what is left of the prompt is the prefix."""
    forward, text, start = full_forward(model, params), list(prompt), 0
    for _ in range(count):
        if len(text) - start > CONTEXT:
            start = len(text) - CONTEXT // 2
        text.append(int(forward(text[start:], max(0, len(prompt) - start))[-1, :27].argmax()))
    return text[len(prompt) :]


@pytest.mark.parametrize("options", OPTIONS)
def test_greedy_is_the_argmax_of_full_forwards(options):
    """Prompts of different lengths in one batch, and texts that outgrow the context."""
    model, params = make(**options)
    sampling = SamplingConfig(max_tokens=24, temperature=0.0)
    drawn = list(stream_tokens(model, params, PROMPTS, sampling, vocab_size=27, prefix=True))
    assert np.concatenate(drawn).T.tolist() == [greedy_by_full_forwards(model, params, prompt, 24) for prompt in PROMPTS]


@pytest.mark.parametrize("options", OPTIONS)
def test_cached_logits_are_those_of_one_full_call(options):
    """The prompt's last token and each token behind it, written one at a time into the cache."""
    model, params = make(**options)
    prepared, rest = decode_params(model, params), [[5, 17, 2, 11], [3, 3, 20, 1], [8, 0, 25, 6]]
    padded = pad_prompts(PROMPTS, CONTEXT, [len(prompt) for prompt in PROMPTS])
    hidden, cache = read_prompts(model, CONTEXT, prepared, jax.tree.map(jnp.asarray, padded), None)
    found = [unembed(model, prepared.tokens, hidden)]
    for step, tokens in enumerate(np.transpose(rest)):
        positions = jnp.asarray([[len(prompt) + step] for prompt in PROMPTS])
        out = write_tokens(model, prepared.tokens, jnp.asarray(tokens)[:, None], cache, positions=positions)
        cache, found = out.cache, [*found, unembed(model, prepared.tokens, out.hidden)]
    forward = full_forward(model, params)
    for row, (prompt, behind) in enumerate(zip(PROMPTS, rest, strict=True)):
        want = forward([*prompt, *behind], len(prompt))[len(prompt) - 1 :]
        np.testing.assert_allclose(np.concatenate(found, axis=1)[row], want, atol=1e-5 * np.abs(want).max())


def test_beam_search_reads_the_prefix_too():
    model, params = make()
    sampling = SamplingConfig(max_tokens=4, temperature=0.0)
    greedy = np.concatenate(list(stream_tokens(model, params, PROMPTS, sampling, prefix=True))).T.tolist()
    one = beam_search(model, params, PROMPTS, SamplingConfig(max_tokens=4, num_beams=1), prefix=True)
    causal = beam_search(model, params, PROMPTS, SamplingConfig(max_tokens=4, num_beams=1))
    assert one == greedy != causal and one[1] == causal[1], "a prefix of one token is like a prompt"


def test_a_prefix_is_for_what_continues_its_prompt():
    size = {"vocab_size": 27, "num_layers": 1, "embed_dim": 16, "num_heads": 2}
    encoder = TransformerConfig(causal=False, head=HeadConfig(kind="none"), **size)
    model = EncoderDecoder(EncoderDecoderConfig(encoder=encoder, decoder=TransformerConfig(cross_attention=True, **size)))
    with pytest.raises(ValueError, match="prefix is for a model that continues its prompt"):
        generate(model, {}, Letters(), ["ab"], SamplingConfig(max_tokens=3), prefix=True)


def test_a_run_trained_with_a_prefix_generates(tmp_path, capsys):
    """From its run folder and from our layout; a published folder cannot say that it reads prompts so."""
    folder = str(tmp_path / "run")
    jaxllm.fit(tiny.config(run_dir=folder, steps=2, objective=PrefixLM()))
    m = jaxllm.load(folder)
    assert m.prefix
    (text,) = m.generate("ROMEO", max_tokens=8, temperature=0.0)
    sampling = SamplingConfig(max_tokens=8, temperature=0.0)
    assert generate(m.model, m.params, m.tokenizer, ["ROMEO"], sampling, prefix=True) == [text]
    capsys.readouterr()
    assert run(["generate", folder, "--prompt", "ROMEO", "--max-tokens", "8", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == f"ROMEO{text}\n"
    convert(folder, tmp_path / "ours", to="jaxllm")
    ours = jaxllm.load(tmp_path / "ours")
    assert ours.prefix and ours.generate("ROMEO", max_tokens=8, temperature=0.0) == [text]
    causal = dataclasses.replace(m, prefix=False, params=jax.tree.map(lambda x: 30 * x, m.params))
    assert causal.generate("ROMEO", max_tokens=8, temperature=0.0) != dataclasses.replace(causal, prefix=True).generate(
        "ROMEO", max_tokens=8, temperature=0.0
    )
    with pytest.warns(UserWarning, match="reads a prompt from both sides, which no published class does"):
        convert(folder, tmp_path / "hf")
