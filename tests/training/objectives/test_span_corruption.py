import numpy as np
import pytest

from jaxllm.data import TokenizerConfig
from jaxllm.models import TransformerConfig
from jaxllm.training import LossConfig
from jaxllm.training.objectives import SpanCorruption
from tests.training.objectives.battery import BOTH, BPE


def examples(data, objective=SpanCorruption(), split="train", seed=0, count=200):  # noqa: B008
    source = objective.rows(data, BOTH, split, seed=seed)
    return source, source.rows(np.arange(min(count, source.rows_per_epoch) if seed is None else count))


def valid(tokens: np.ndarray, segments: np.ndarray) -> list[int]:
    return tokens[segments > 0].tolist()


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("packing", ["concat", "fit"])
def test_both_sides_together_are_the_text(open_set, split, packing):
    """To the token, and to the letter: each mark of the source replaced by what follows it in the target."""
    data = open_set(tokenizer=BPE, packing=packing)
    source, batch = examples(data, split=split, seed=0 if split == "train" else None)
    sentinels, end = source.make.sentinels, source.make.end
    base = source.base.rows(np.arange(len(batch["tokens"])))
    for k in range(len(batch["tokens"])):
        read = valid(batch["tokens"][k], batch["segment_ids"][k])
        written = valid(batch["targets"][k], batch["decoder_segment_ids"][k])
        assert read.pop() == end and written.pop() == end
        spans = {}
        for token in written:
            if token in sentinels:
                spans[token] = []
            else:
                spans[list(spans)[-1]].append(token)
        assert list(spans) == list(sentinels[: len(spans)]) == [t for t in read if t in sentinels]
        text = sum((spans[token] if token in sentinels else [token] for token in read), [])
        want = valid(base["tokens"][k], base["segment_ids"][k])
        assert text == want and data.tokenizer.decode(text) == data.tokenizer.decode(want)


@pytest.mark.parametrize("options", [{}, {"noise": 0.3, "mean_span": 2.0}])
def test_density_and_mean_length_are_those_asked_for(open_set, options):
    objective = SpanCorruption(**options)
    data = open_set(tokenizer=TokenizerConfig(), seq_len=60)
    source, batch = examples(data, objective)
    text, target_len = objective.lengths(60)
    taken = np.isin(batch["targets"], source.make.sentinels, invert=True) & (batch["loss_weights"] > 0)
    spans = np.isin(batch["targets"], source.make.sentinels).sum(axis=1)
    noise = taken.sum(axis=1) - 1  # but the end mark
    assert (noise == round(text * objective.noise)).all()
    assert (spans == round(noise[0] / objective.mean_span)).all()
    assert (batch["segment_ids"] > 0).sum(axis=1).max() <= 60 and batch["targets"].shape[1] == target_len


def test_lengths_are_those_of_the_paper():
    """512 read come of 568 tokens of text and 114 written, as in T5's pre-training."""
    assert SpanCorruption().lengths(512) == (568, 114)


def test_the_decoder_reads_its_targets_one_later(open_set):
    _, batch = examples(open_set(tokenizer=BPE))
    there = batch["decoder_segment_ids"] > 0
    assert (batch["decoder_tokens"][:, 0] == BOTH.start_id).all()
    assert (batch["decoder_tokens"][:, 1:] == batch["targets"][:, :-1])[there[:, 1:]].all()
    assert (batch["loss_weights"] == there).all() and not batch["targets"][~there].any()


def test_marks_are_new_entries_or_those_of_the_tokenizer(open_set):
    data = open_set(tokenizer=BPE)
    objective, config = SpanCorruption(), data.config
    source, _ = examples(data)
    known = data.tokenizer.vocab_size
    assert source.make.sentinels == tuple(range(known, known + len(source.make.sentinels)))
    assert objective.vocab_size(data.tokenizer, config) == known + len(source.make.sentinels)
    core = data.tokenizer._core  # type: ignore[attr-defined]
    core.add_special_tokens([f"<extra_id_{k}>" for k in reversed(range(len(source.make.sentinels)))])
    size = core.get_vocab_size()
    from jaxllm.training.objectives.marks import sentinel_ids

    assert sentinel_ids(data.tokenizer, 2) == (size - 1, size - 2)
    with pytest.raises(ValueError, match=r"hide 50 spans: the tokenizer has only \d+ marks"):
        sentinel_ids(data.tokenizer, 50)


def test_what_cannot_be(open_set):
    with pytest.raises(ValueError, match=r"objective.noise must be in \(0, 1\): got 0"):
        SpanCorruption(noise=0.0)
    with pytest.raises(ValueError, match="objective.mean_span must be at least 1: got 0.5"):
        SpanCorruption(mean_span=0.5)
    config = open_set(tokenizer=BPE).config
    with pytest.raises(ValueError, match="SpanCorruption needs an EncoderDecoderConfig as model: got TransformerConfig"):
        SpanCorruption().check(TransformerConfig(), config, LossConfig())
    with pytest.raises(ValueError, match="loss.chunk must divide the decoder's tokens a row: got loss.chunk=5"):
        SpanCorruption().check(BOTH, config, LossConfig(chunk=5))
    with pytest.raises(ValueError, match="needs a tokenizer with an end mark"):
        examples(open_set(tokenizer=TokenizerConfig(kind="characters")))
