import numpy as np
import pytest

from jaxllm.data import TokenizerConfig
from jaxllm.training.objectives import MaskedLM
from jaxllm.training.objectives.marks import Entries, mask_id
from tests.training.objectives.battery import ENCODER

COUNT = 600
KINDS = [
    {},
    {"whole_words": True},
    {"spans": "geometric"},
    {"spans": "geometric", "whole_words": True},
    {"fraction": 0.3, "masked": 0.5, "random": 0.25},
]
every = pytest.mark.parametrize("options", KINDS, ids=str)


def examples(data, options, count=COUNT):
    """Rows, with the text that they were made from restored, and where something is to be guessed."""
    batch = MaskedLM(**options).rows(data, ENCODER, "train", seed=0).rows(np.arange(count))
    chosen = np.zeros(batch["tokens"].shape, bool)
    row, place = np.nonzero(batch["loss_weights"])
    chosen[row, batch["hidden"][row, place]] = True
    text = batch["tokens"].copy()
    text[row, batch["hidden"][row, place]] = batch["targets"][row, place]
    return batch, text, chosen


@every
def test_a_fraction_is_chosen_and_no_mark_or_padding(open_set, options):
    data = open_set(packing="fit")
    batch, text, chosen = examples(data, options)
    ordinary = (batch["segment_ids"] > 0) & ~Entries(data.tokenizer).special[text]
    assert not (chosen & ~ordinary).any()
    fraction, count = MaskedLM(**options).fraction, ordinary.sum()
    # Tokens of a word or a span are chosen together, so the count varies more than by single draws.
    together = 1.0 if not options.get("whole_words") and not options.get("spans") else 4.0
    slack = 4 * (together * fraction * (1 - fraction) / count) ** 0.5 + (0.01 if options.get("spans") else 0)
    assert abs(chosen.sum() / count - fraction) < slack


@every
def test_what_stands_for_chosen_tokens(open_set, options):
    """80 % masks, 10 % random tokens, 10 % themselves; all others stay."""
    data = open_set()
    batch, text, chosen = examples(data, options)
    shown, objective = batch["tokens"], MaskedLM(**options)
    assert (shown[~chosen] == text[~chosen]).all()
    masked, kept = (shown == mask_id(data.tokenizer))[chosen], (shown == text)[chosen]
    ordinary = (~Entries(data.tokenizer).special).sum()
    slack = 5 * (4 * 0.25 / chosen.sum()) ** 0.5
    assert abs(masked.mean() - objective.masked) < slack
    by_chance = objective.random / ordinary
    assert abs(kept.mean() - (1 - objective.masked - objective.random) - by_chance) < slack
    others = shown[chosen][~masked & ~kept]
    assert len(set(others)) > 0.5 * min(ordinary, len(others) / 4) and not Entries(data.tokenizer).special[others].any()


@pytest.mark.parametrize("tokenizer", [TokenizerConfig(), TokenizerConfig(kind="bpe", vocab_size=300)], ids=["bytes", "bpe"])
def test_whole_words_are_whole(open_set, tokenizer):
    data = open_set(tokenizer=tokenizer)
    texts = [data.tokenizer.decode([id]) for id in range(data.tokenizer.vocab_size)]
    begins, letters = (np.array([f(text[:1]) for text in texts]) for f in (str.isspace, str.isalpha))

    def torn(options):
        """Whether a token is chosen and the one before it is not, where both are of one word."""
        batch, text, chosen = examples(data, options)
        inside = letters[text[:, 1:]] & ~begins[text[:, 1:]] & np.array([t[-1:].isalpha() for t in texts])[text[:, :-1]]
        inside &= batch["segment_ids"][:, 1:] == batch["segment_ids"][:, :-1]
        assert inside.mean() > 0.1
        return (chosen[:, 1:] != chosen[:, :-1])[inside].mean()

    assert torn({"whole_words": True}) == 0 == torn({"whole_words": True, "spans": "geometric"})
    assert torn({}) > 0.1


def test_spans_are_runs_of_one_kind(open_set):
    """Their lengths are SpanBERT's, 3.8 on average; neighbours may touch, so runs are a little longer."""
    data = open_set(seq_len=128, tokenizer=TokenizerConfig(), cross_document_attention=True)
    batch, text, chosen = examples(data, {"spans": "geometric"}, 200)
    starts = chosen & ~np.pad(chosen[:, :-1], ((0, 0), (1, 0)))
    assert 3.2 < chosen.sum() / starts.sum() < 4.8
    masked = batch["tokens"] == mask_id(data.tokenizer)
    inside = chosen[:, 1:] & chosen[:, :-1]
    assert (masked[:, 1:] == masked[:, :-1])[inside].mean() > 0.97


def test_rows_are_framed_by_the_marks_of_the_tokenizer(open_set):
    data = open_set(packing="fit")
    tokenizer = data.tokenizer
    batch, text, _ = examples(data, {})
    assert (text[:, 0] == tokenizer.cls_id).all() and (batch["positions"][:, 0] == 0).all()
    for row, segments, positions in zip(text, batch["segment_ids"], batch["positions"], strict=True):
        used = int((segments > 0).sum())
        assert row[used - 1] == tokenizer.sep_id and not row[used:].any() and not positions[used:].any()
        for segment in range(1, segments.max() + 1):
            assert (positions[segments == segment] == np.arange((segments == segment).sum())).all()
    plain, _, _ = examples(open_set(tokenizer=TokenizerConfig()), {})
    assert (plain["positions"][:, 0] == 0).all() and plain["tokens"].max() == 257  # bytes: no marks but the mask


def test_a_row_hides_no_more_than_there_are_places(open_set):
    objective = MaskedLM(fraction=0.9)
    assert objective.most(32) == 32 and MaskedLM().most(512) == 128 and MaskedLM().most(512) >= 0.15 * 512 + 6 * 8
    data = open_set()
    batch, _, chosen = examples(data, {"fraction": 0.9})
    assert chosen.sum(axis=1).max() <= 32 and (batch["loss_weights"].sum(axis=1) == chosen.sum(axis=1)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 1.0}, r"objective.fraction must be in \(0, 1\): got 1.0"),
        ({"masked": 0.8, "random": 0.3}, "add up to 1 at most: got 0.8 and 0.3"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        MaskedLM(**options)
