"""Sentence embedding: a vector is that of its text alone, whatever is padded and computed beside it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.data import load_tokenizer
from jaxllm.data.tokenizer import ByteTokenizer
from jaxllm.inference.embed import _embed, embed
from jaxllm.models import HeadConfig, Transformer, TransformerConfig, init_params
from tests.quick import some

CONFIG = TransformerConfig(
    vocab_size=257,
    context_len=48,
    num_layers=2,
    embed_dim=16,
    num_heads=2,
    causal=False,
    norm_placement="post",
    embed_norm=True,
    token_types=2,
    init_std=0.5,
    head=HeadConfig(kind="none"),
)
TEXTS = ["a cat", "x", "the quick brown fox jumps over the dog", "a cat", "another text of 27 letters."]


@pytest.fixture(scope="module")
def encoder():
    model = Transformer(CONFIG)
    return model, init_params(model, jax.random.key(0))


def hidden(encoder, ids):
    model, params = encoder
    return np.asarray(model.apply({"params": params}, jnp.asarray([ids])).hidden[0])


@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize("normalize", some([True, False], [True]))
def test_vectors_are_those_of_each_text_without_padding(encoder, pooling, normalize):
    got = embed(*encoder, ByteTokenizer(), TEXTS, pooling=pooling, normalize=normalize)
    for text, vector in zip(TEXTS, got, strict=True):
        states = hidden(encoder, list(text.encode()))
        want = states.mean(0) if pooling == "mean" else states[0]
        np.testing.assert_allclose(vector, want / np.linalg.norm(want) if normalize else want, atol=1e-5)


def test_batches_do_not_change_them(encoder):
    want = embed(*encoder, ByteTokenizer(), TEXTS)
    assert not np.allclose(want[0], want[1], atol=1e-2)
    for batch_size in (1, 2, 3):
        np.testing.assert_allclose(embed(*encoder, ByteTokenizer(), TEXTS, batch_size=batch_size), want, atol=1e-5)


def test_long_texts_are_cut(encoder):
    long = "0123456789" * 10
    for limit, max_len in ((48, None), (48, 100), (7, 7)):
        got = embed(*encoder, ByteTokenizer(), [long], max_len=max_len)
        np.testing.assert_allclose(got, embed(*encoder, ByteTokenizer(), [long[:limit]]), atol=1e-5)


def test_a_published_tokenizer_puts_its_special_tokens_around(encoder, tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = load_tokenizer(tmp_path)
    got = embed(*encoder, tokenizer, ["A cat cat", "a cat"], normalize=False, max_len=4)
    for vector, names in zip(got, (["[CLS]", "a", "cat", "[SEP]"],) * 2, strict=True):
        np.testing.assert_allclose(vector, hidden(encoder, [words.index(name) for name in names]).mean(0), atol=1e-5)


def test_lengths_and_numbers_of_texts_share_programs(encoder):
    _embed.clear_cache()
    for length in range(1, 33):
        embed(*encoder, ByteTokenizer(), ["a" * length] * 3)
    assert _embed._cache_size() == 1
    embed(*encoder, ByteTokenizer(), ["a" * 33] * 4)
    assert _embed._cache_size() == 2


def test_no_texts_and_no_tokens(encoder):
    assert embed(*encoder, ByteTokenizer(), []).shape == (0, 16)
    with pytest.raises(ValueError, match="a text must have at least one token to be embedded: got ''; leave it out"):
        embed(*encoder, ByteTokenizer(), ["a", ""])
    with pytest.raises(ValueError, match="batch_size must be at least 1: got 0"):
        embed(*encoder, ByteTokenizer(), ["a"], batch_size=0)
