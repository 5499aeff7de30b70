"""Text written behind virtual tokens, and vectors of texts read behind them: each row's own, whatever stands beside it."""

import jax
import numpy as np
import pytest

from jaxllm.data.tokenizer import ByteTokenizer
from jaxllm.finetune import PrefixTuning, PromptTuning, adapt, begin_params
from jaxllm.inference import SamplingConfig, beam_search, embed, stream_tokens
from jaxllm.models import HeadConfig, Transformer, TransformerConfig, init_params
from tests.inference.test_generate import CONTEXT, make

N, ROOM = 3, CONTEXT - 3
PROMPTS = [[1, 2, 3], [4], list(range(ROOM))]
METHODS = [PrefixTuning(tokens=N, initialization="random"), PromptTuning(tokens=N, initialization="random")]
GREEDY = SamplingConfig(max_tokens=18, temperature=0.0)


@pytest.fixture(scope="module", params=METHODS, ids=["prefix", "prompt"])
def adapted(request):
    """With positions from a table, so that a place too far would show; layers loop, and come apart to decode."""
    model, params = make(layer_loop="scan")
    model = adapt(model, request.param)
    return model, jax.jit(begin_params, static_argnums=0)(model, jax.random.key(1), params)


def drawn(adapted, prompts, sampling, **options):
    return np.concatenate(list(stream_tokens(*adapted, prompts, sampling, vocab_size=27, **options))).T.tolist()


def test_greedy_is_the_argmax_of_full_forwards_and_a_context_that_moves_keeps_its_slots(adapted):
    model, params = adapted
    assert model.context_len == ROOM
    forward = jax.jit(lambda tokens: model.apply({"params": params}, tokens).logits)

    def by_definition(prompt):
        text, start = list(prompt), 0
        for _ in range(GREEDY.max_tokens):
            if len(text) - start > ROOM:
                start = len(text) - ROOM // 2
            tokens = np.zeros((1, ROOM), np.int32)
            tokens[0, : len(text) - start] = text[start:]
            text.append(int(np.asarray(forward(tokens))[0, len(text) - start - 1, :27].argmax()))
        return text[len(prompt) :]

    assert drawn(adapted, PROMPTS, GREEDY) == [by_definition(prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("adapted", METHODS[1:], ids=["prompt"], indirect=True)
def test_what_is_drawn_or_searched_does_not_depend_on_the_rows_beside(adapted):
    sampling = SamplingConfig(max_tokens=8, temperature=0.9, seed=3)
    together = drawn(adapted, PROMPTS, sampling, num_samples=2)
    assert together[:2] == drawn(adapted, PROMPTS[:1], sampling, num_samples=2)
    search = SamplingConfig(max_tokens=6, num_beams=3, temperature=0.0)
    found = beam_search(*adapted, PROMPTS[:2], search, vocab_size=27)
    assert found[:1] == beam_search(*adapted, PROMPTS[:1], search, vocab_size=27)
    with pytest.raises(ValueError, match=f"model's context of {ROOM} tokens: got {ROOM} \\+ 6"):
        beam_search(*adapted, PROMPTS, search)


@pytest.mark.parametrize("method", METHODS, ids=["prefix", "prompt"])
def test_vectors_are_those_of_each_text_alone(method):
    size = {"vocab_size": 257, "context_len": 16, "num_layers": 2, "embed_dim": 16, "num_heads": 2, "init_std": 0.5}
    base = Transformer(TransformerConfig(causal=False, head=HeadConfig(kind="none"), **size))
    model = adapt(base, method)
    params = jax.jit(begin_params, static_argnums=0)(model, jax.random.key(1), init_params(base, jax.random.key(0)))
    long = "the quick brown fox jumps"
    got = embed(model, params, ByteTokenizer(), [long, "x", long[: 16 - N]], normalize=False)
    tokens = np.asarray([list(long.encode())[: 16 - N]], np.int32)
    hidden = jax.jit(lambda tokens: model.apply({"params": params}, tokens).hidden)(tokens)
    np.testing.assert_allclose(got[0], np.asarray(hidden)[0].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(got[2], got[0], atol=1e-6)
    assert np.abs(embed(base, params, ByteTokenizer(), [long[: 16 - N]], normalize=False) - got[2]).max() > 0.05
