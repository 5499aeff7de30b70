"""Beam search against its definition, one text after another, and against exhaustive search."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.inference import SamplingConfig, beam_search, encode_sources, generate, stream_tokens
from jaxllm.models import EncoderDecoder, EncoderDecoderConfig, HeadConfig, Transformer, TransformerConfig, init_params
from tests.inference.test_generate import Letters

SIZE = {"vocab_size": 8, "context_len": 16, "num_layers": 2, "embed_dim": 16, "num_heads": 2}
EOS = 4


def scaled_params(model):
    return jax.tree.map(lambda x: 8.0 * x, jax.jit(init_params, static_argnums=0)(model, jax.random.key(3)))


@pytest.fixture(scope="module")
def decoder():
    model = Transformer(TransformerConfig(**SIZE))
    return model, scaled_params(model)


@pytest.fixture(scope="module")
def translator():
    size = {**SIZE, "position": "relative", "norm": "rms_norm", "bias": False}
    encoder = TransformerConfig(causal=False, head=HeadConfig(kind="none"), **size)
    config = EncoderDecoderConfig(encoder=encoder, decoder=TransformerConfig(cross_attention=True, **size), start_id=0)
    model = EncoderDecoder(config)
    return model, scaled_params(model)


def log_probs_of(model, params, prompt):
    """log p(text | prompt) of every text, from full forwards; kept between calls."""
    forward = jax.jit(lambda tokens: jax.nn.log_softmax(model.apply({"params": params}, tokens).logits, axis=-1))
    known = {}

    def next_log_probs(text):
        if text not in known:
            tokens = np.zeros((1, 16), np.int32)
            context = [*prompt, *text]
            tokens[0, : len(context)] = context
            known[text] = np.asarray(forward(jnp.asarray(tokens))[0, len(context) - 1])
        return known[text]

    return next_log_probs


def naive(next_log_probs, width, count, eos, penalty, early=False):
    """Beam search as it is told: lists of texts and scores, sorted."""
    running, done = [((), 0.0)], []
    for length in range(1, count + 1):
        grown = [((*text, token), score + lp) for text, score in running for token, lp in enumerate(next_log_probs(text))]
        best = sorted(grown, key=lambda pair: -pair[1])[: 2 * width]
        ends = [text[-1] == eos or length == count for text, _ in best]
        if not (early and len(done) == width):
            first = list(zip(best, ends, strict=True))[:width]
            done += [(text, score / length**penalty) for (text, score), end in first if end]
        done = sorted(done, key=lambda pair: -pair[1])[:width]
        running = [pair for pair, end in zip(best, ends, strict=True) if not end][:width]
        if not running or (early and len(done) == width):
            break
        worst = done[-1][1] if len(done) == width else -np.inf
        if running[0][1] / length**penalty <= worst:
            break
    return list(done[0][0])


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("early", [False, True])
def test_equals_its_definition(decoder, penalty, early):
    model, params = decoder
    prompts = [[1, 2, 3], [4], [5, 6, 1, 2]]
    sampling = SamplingConfig(max_tokens=7, num_beams=3, length_penalty=penalty, early_stopping=early)
    got = beam_search(model, params, prompts, sampling, eos_ids=[EOS])
    want = [naive(log_probs_of(model, params, prompt), 3, 7, EOS, penalty, early) for prompt in prompts]
    assert got == want
    assert any(text[-1] == EOS and len(text) < 7 for text in want), "no text ends before its time: the test shows too little"


def test_a_wide_search_finds_the_likeliest_of_all_texts(decoder):
    model, params = decoder
    next_log_probs = log_probs_of(model, params, [3])

    def log_prob(text):
        return sum(next_log_probs(text[:i])[token] for i, token in enumerate(text))

    best = max(itertools.product(range(8), repeat=3), key=log_prob)
    assert beam_search(model, params, [[3]], SamplingConfig(max_tokens=3, num_beams=64))[0] == list(best)


def test_one_beam_is_greedy(decoder):
    model, params = decoder
    prompts = [[1, 2, 3], [4]]
    greedy = np.concatenate(list(stream_tokens(model, params, prompts, SamplingConfig(max_tokens=8, temperature=0.0))))
    assert beam_search(model, params, prompts, SamplingConfig(max_tokens=8, num_beams=1)) == greedy.T.tolist()


def test_suppressed_tokens_are_never_written(decoder):
    model, params = decoder
    free = beam_search(model, params, [[1]], SamplingConfig(max_tokens=8, num_beams=2))[0]
    barred = tuple(set(free))
    for sampling in (SamplingConfig(max_tokens=8, num_beams=2, suppress=barred), SamplingConfig(max_tokens=8, suppress=barred)):
        if sampling.num_beams is None:
            texts = np.concatenate(list(stream_tokens(model, params, [[1]], sampling))).ravel().tolist()
        else:
            texts = beam_search(model, params, [[1]], sampling)[0]
        assert not set(texts) & set(barred)


def test_encoder_decoder_reads_its_own_source_only(translator):
    """A batch of sources of different lengths gives what each gives alone, by a full forward without a cache."""
    model, params = translator
    sources = [[1, 2, 3, 4, 5], [6, 1]]
    forward = jax.jit(lambda s, t: model.apply({"params": params}, s, t).logits)

    def greedy(source, count):
        text = [0]
        for _ in range(count):
            text.append(int(forward(jnp.asarray([source]), jnp.asarray([text]))[0, -1].argmax()))
        return text[1:]

    memory = encode_sources(model, params, sources)
    sampling = SamplingConfig(max_tokens=6, temperature=0.0)
    drawn = np.concatenate(list(stream_tokens(model, params, [[0], [0]], sampling, memory=memory))).T.tolist()
    assert drawn == [greedy(source, 6) for source in sources]
    beams = beam_search(model, params, [[0], [0]], SamplingConfig(max_tokens=6, num_beams=4), memory=memory)
    for source, found in zip(sources, beams, strict=True):
        alone = encode_sources(model, params, [source])
        assert beam_search(model, params, [[0]], SamplingConfig(max_tokens=6, num_beams=4), memory=alone) == [found]
    assert beams[0] != beams[1]


def test_generate_with_beams_and_an_encoder():
    size = {"vocab_size": 32, "context_len": 16, "num_layers": 1, "embed_dim": 16, "num_heads": 2}
    encoder = TransformerConfig(causal=False, head=HeadConfig(kind="none"), **size)
    model = EncoderDecoder(EncoderDecoderConfig(encoder=encoder, decoder=TransformerConfig(cross_attention=True, **size)))
    params = scaled_params(model)
    texts = generate(model, params, Letters(), ["ab", "hello"], SamplingConfig(max_tokens=5, num_beams=2))
    assert len(texts) == 2 and all(len(text) <= 5 and text.isalpha() for text in texts)
    with pytest.raises(ValueError, match="num_samples must be 1 with num_beams"):
        generate(model, params, Letters(), ["ab"], SamplingConfig(max_tokens=5, num_beams=2), num_samples=2)


def test_texts_longer_than_the_context_are_refused(decoder):
    model, params = decoder
    with pytest.raises(ValueError, match="context of 16 tokens: got 3 \\+ 15"):
        beam_search(model, params, [[1, 2, 3]], SamplingConfig(max_tokens=15, num_beams=2))
