from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.data import Tokenizer
from jaxllm.inference import SamplingConfig, decode, decode_params, generate, stream_tokens
from jaxllm.models import Transformer, TransformerConfig, init_params

CONTEXT = 16


class Letters(Tokenizer):
    """Ids 0..25 are letters, 26 ends a text."""

    vocab_size, eos_id, bos_id, pad_id, fingerprint = 27, 26, None, None, "letters"

    def encode(self, text):
        return [ord(c) - 97 for c in text]

    def decode(self, ids):
        return "".join(chr(i + 97) if i < 26 else "" for i in ids)


def make(**options):
    # 32 rows in the table, 27 tokens in the tokenizer: the rest must never be drawn.
    config = TransformerConfig(
        **{"vocab_size": 32, "context_len": CONTEXT, "num_layers": 2, "embed_dim": 32, "num_heads": 2, **options}
    )
    model = Transformer(config)
    # Larger than a fresh model's, so that distributions are far from uniform and greedy text does not stand still.
    params = jax.tree.map(lambda x: 8.0 * x, jax.jit(init_params, static_argnums=0)(model, jax.random.key(3)))
    return model, params


@pytest.fixture(scope="module")
def model_and_params():
    return make()


def tokens_of(model, params, prompts, sampling, **options):
    chunks = list(stream_tokens(model, params, prompts, sampling, vocab_size=27, **options))
    return np.concatenate(chunks).T.tolist()


def greedy_without_cache(model, params, prompt, count, penalty=1.0):
    """The definition: a full forward over the context for each token; a context outgrown keeps its last half.

    The repetition penalty counts all of the text, also what the context has lost.
    """
    forward = jax.jit(lambda tokens: model.apply({"params": params}, tokens).logits)
    text, start = list(prompt), 0
    for _ in range(count):
        if len(text) - start > CONTEXT:
            start = len(text) - CONTEXT // 2
        context = text[start:]
        tokens = np.zeros((1, CONTEXT), np.int32)
        tokens[0, : len(context)] = context  # causal: what comes after does not matter
        logits = np.array(forward(tokens)[0, len(context) - 1, :27])
        for token in set(text):
            logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
        text.append(int(logits.argmax()))
    return text[len(prompt) :]


OPTIONS = [
    {},
    {"position": "rotary", "num_kv_heads": 1, "norm": "rms_norm", "activation": "swiglu", "tie_embeddings": False},
    {"position": "alibi", "parallel_block": True, "window": 5},
    {"layer_loop": "unroll", "logit_softcap": 5.0, "attention_softcap": 3.0, "position": "sinusoidal"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_greedy_with_cache_is_the_argmax_of_the_full_forward(options):
    """Prompts of different lengths in one batch, one as long as the context, and texts that outgrow it twice."""
    model, params = make(**options)
    prompts = [[1, 2, 3], [4], list(range(CONTEXT))]
    got = tokens_of(model, params, prompts, SamplingConfig(max_tokens=40, temperature=0.0))
    expected = [greedy_without_cache(model, params, prompt, 40) for prompt in prompts]
    assert got == expected
    assert len({tuple(row) for row in got}) == 3 and all(len(set(row)) > 2 for row in got)


def test_a_prompt_gets_the_same_text_alone_and_in_a_batch(model_and_params):
    prompts = [[1, 2, 3], [4], list(range(CONTEXT)), [5] * 9]
    sampling = SamplingConfig(max_tokens=40, top_p=0.9, repetition_penalty=1.3, seed=5)
    together = tokens_of(*model_and_params, prompts, sampling)
    alone = [tokens_of(*model_and_params, [prompt], sampling)[0] for prompt in prompts]
    assert together == alone


def test_samples_of_a_prompt_differ_and_do_not_depend_on_their_number(model_and_params):
    sampling = SamplingConfig(max_tokens=12)
    three = tokens_of(*model_and_params, [[1, 2], [3]], sampling, num_samples=3)
    assert len({tuple(row) for row in three}) == 6
    one = tokens_of(*model_and_params, [[1, 2], [3]], sampling)
    assert one == [three[0], three[3]]


def test_the_seed_decides(model_and_params):
    draw = lambda seed: tokens_of(*model_and_params, [[1]], SamplingConfig(max_tokens=12, seed=seed))  # noqa: E731
    assert draw(1) == draw(1) != draw(2)


def test_each_draw_of_a_row_has_its_own_randomness(model_and_params):
    """All tokens equally likely at every step: only the key can tell one draw from the next."""
    model, params = model_and_params
    flat = jax.tree.map(jnp.zeros_like, params)
    (row,) = tokens_of(model, flat, [[1]], SamplingConfig(max_tokens=54))
    assert 15 <= len(set(row)) <= 27  # 23.5 different ones are expected of 54 draws from 27


def test_the_repetition_penalty_counts_prompt_and_text(model_and_params):
    prompts = [[3, 1, 4], list(range(10))]
    sampling = SamplingConfig(max_tokens=40, temperature=0.0, repetition_penalty=1.7)
    got = tokens_of(*model_and_params, prompts, sampling)
    assert got == [greedy_without_cache(*model_and_params, prompt, 40, penalty=1.7) for prompt in prompts]
    assert got[0] != greedy_without_cache(*model_and_params, prompts[0], 40)


def test_one_program_a_bucket(model_and_params):
    """Lengths that share a bucket share programs, and so do seeds, stop texts and lengths of the completion."""
    model, params = make(context_len=128, num_layers=1)
    params = decode_params(model, params)
    for name in ("_prefill", "decode"):
        getattr(decode, name).clear_cache()
    for length, max_tokens, seed in ((3, 20, 0), (7, 25, 1), (12, 9, 2)):
        sampling = SamplingConfig(max_tokens=max_tokens, seed=seed, stop=("x" * (seed + 1),))
        list(stream_tokens(model, params, [[1] * length], sampling))
    assert (decode._prefill._cache_size(), decode.decode._cache_size()) == (1, 1)
    list(stream_tokens(model, params, [[1] * 40], SamplingConfig(max_tokens=5)))
    assert (decode._prefill._cache_size(), decode.decode._cache_size()) == (2, 2)


VALUES = {
    "temperature": (0.5, 0.8, 2.0),
    "top_k": (1, 5, 99),
    "top_p": (0.3, 0.9, 1.0),
    "min_p": (0.01, 0.2, 1.0),
    "repetition_penalty": (0.9, 1.0, 1.3),
}
GREEDY = {**VALUES, "temperature": (0.0, 0.0, 0.0), "top_k": (5, None, 7)}  # filters change nothing here


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": VALUES["temperature"]},
        *({"temperature": VALUES["temperature"], name: VALUES[name]} for name in list(VALUES)[1:]),
        VALUES,
        GREEDY,
    ],
    ids=lambda values: "greedy" if values is GREEDY else "-".join(values),
)
def test_one_program_for_all_values_of_the_sampling(values):
    """Which steps are on makes a program, their numbers do not."""
    model, params = make(context_len=64, num_layers=1)
    params = decode_params(model, params)
    for name in ("_prefill", "decode"):
        getattr(decode, name).clear_cache()
    for numbers in zip(*values.values(), strict=True):
        sampling = SamplingConfig(max_tokens=4, **dict(zip(values, numbers, strict=True)))
        list(stream_tokens(model, params, [[1, 2, 3]], sampling))
    assert (decode._prefill._cache_size(), decode.decode._cache_size()) == (1, 1)
    other = {"temperature": 0.7 if values is GREEDY else 0.0}
    list(stream_tokens(model, params, [[1, 2, 3]], SamplingConfig(max_tokens=4, **other)))
    assert (decode._prefill._cache_size(), decode.decode._cache_size()) == (2, 2)


def test_no_token_is_written_into_a_full_cache(model_and_params, monkeypatch):
    """Every prompt length up to beyond the context, and completions that fill it to the last slot, or twice over."""
    free = []

    def watched(model, vocab_size, params, drawing, keys, state, steps):
        free.append(state.cache.positions.shape[1] - int(state.cache.length) - int(steps))
        return decode.decode(model, vocab_size, params, drawing, keys, state, steps)

    monkeypatch.setattr(import_module("jaxllm.inference.generate"), "decode", watched)  # the name is also a function's
    for length in range(1, CONTEXT + 3):
        for max_tokens in (CONTEXT - length, CONTEXT - length + 1, 2 * CONTEXT):
            if max_tokens > 0:
                sampling = SamplingConfig(max_tokens=max_tokens, temperature=0.0)
                (row,) = tokens_of(*model_and_params, [[1] * length], sampling)
                assert len(row) == max_tokens
    assert min(free) == 0


@pytest.mark.parametrize(("length", "size"), [(1, 32), (32, 32), (33, 64), (65, 100), (100, 100)])
def test_buckets(length, size):
    assert decode.bucket(length, 100) == size


def test_decode_params_change_no_number_and_are_made_once(model_and_params):
    model, params = model_and_params
    prepared = decode_params(model, params)
    assert decode_params(model, prepared) is prepared
    tokens = jnp.arange(10)[None]
    full = model.apply({"params": params}, tokens).logits
    rounding = 1e-6 * np.abs(full).max()  # the sums of the layers in another order
    for form in prepared:
        np.testing.assert_allclose(model.apply({"params": form}, tokens).logits, full, rtol=0, atol=rounding)


def test_decode_params_share_memory_on_a_cpu(model_and_params):
    model, params = model_and_params
    prepared = decode_params(model, params)
    start = params["layers"]["ffw"]["up"]["kernel"].unsafe_buffer_pointer()
    kernels = [layer["ffw"]["up"]["kernel"] for layer in prepared.tokens["layers"]]
    assert [kernel.unsafe_buffer_pointer() - start for kernel in kernels] == [0, kernels[0].nbytes]
    assert prepared.prompts["layers"]["ffw"]["up"]["kernel"].unsafe_buffer_pointer() == start


def test_decode_params_keep_norms_in_their_own_type():
    model, params = make(compute_dtype="bfloat16")
    prepared = decode_params(model, params)
    types = {path[-1].key: leaf.dtype.name for path, leaf in jax.tree_util.tree_leaves_with_path(prepared.tokens["layers"][0])}
    assert types["kernel"] == "bfloat16" and types["scale"] == "float32"


def test_completions_and_what_is_streamed(model_and_params):
    shown = {}

    def on_text(row, text):
        shown[row] = shown.get(row, "") + text

    sampling = SamplingConfig(max_tokens=30, seed=1)
    completions = generate(*model_and_params, Letters(), ["abc", "z"], sampling, num_samples=2, on_text=on_text)
    assert len(completions) == 4
    assert [shown.get(row, "") for row in range(4)] == completions
    tokens = tokens_of(*model_and_params, [[0, 1, 2], [25]], sampling, num_samples=2)
    cut = [row[: row.index(26)] if 26 in row else row for row in tokens]
    assert completions == [Letters().decode(row) for row in cut]
    assert any(26 in row for row in tokens) and any(26 not in row for row in tokens)


def test_a_stop_text_ends_a_completion_before_it(model_and_params):
    sampling = SamplingConfig(max_tokens=30, seed=1)
    (whole,) = generate(*model_and_params, Letters(), ["z"], sampling)
    stop = whole[7:9]
    (cut,) = generate(*model_and_params, Letters(), ["z"], SamplingConfig(max_tokens=30, seed=1, stop=(stop,)))
    assert cut == whole[: whole.index(stop)] and 0 < len(cut) < len(whole)


def test_an_empty_prompt_begins_a_text(model_and_params):
    assert len(generate(*model_and_params, Letters(), [""], SamplingConfig(max_tokens=3, temperature=0.0))) == 1

    class Nameless(Letters):
        eos_id = None

    with pytest.raises(ValueError, match="at least one token: got an empty one"):
        generate(*model_and_params, Nameless(), [""], SamplingConfig(max_tokens=3))


def test_a_prompt_longer_than_the_context_is_refused(model_and_params):
    with pytest.raises(ValueError, match=r"context of 16 tokens: got 17 tokens, beginning 'aaa.*Shorten it"):
        generate(*model_and_params, Letters(), ["b", "a" * 17], SamplingConfig(max_tokens=3))


def test_at_least_one_sample(model_and_params):
    with pytest.raises(ValueError, match="num_samples must be at least 1: got 0"):
        generate(*model_and_params, Letters(), ["b"], SamplingConfig(max_tokens=3), num_samples=0)
