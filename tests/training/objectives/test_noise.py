import numpy as np
import pytest

from jaxllm.training.objectives.examples import noise_keys
from jaxllm.training.objectives.noise import (
    choose,
    compact,
    covered,
    drawn_spans,
    geometric,
    interleaved_spans,
    poisson,
    uniforms,
)

KEYS = noise_keys(0, np.arange(4000))


def test_uniforms_are_uniform_and_independent():
    numbers = uniforms(KEYS, 0, 8)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 4 * (1 / 12 / numbers.size) ** 0.5
    columns = np.concatenate([numbers, uniforms(KEYS, 1, 8), uniforms(noise_keys(1, np.arange(4000)), 0, 8)], axis=1)
    correlation = np.corrcoef(columns.T) - np.eye(24)
    assert np.abs(correlation).max() < 5 / len(KEYS) ** 0.5
    assert len(np.unique(columns)) == columns.size


def test_numbers_of_a_row_do_not_depend_on_the_others_or_on_their_count():
    assert (uniforms(KEYS[7:9], 3, 5) == uniforms(KEYS, 3, 50)[7:9, :5]).all()


def test_random_numbers_stay_what_they_are():
    """A resumed run needs them: when these change, every stored run is masked otherwise from there on."""
    want = [[0.13961, 0.71473]]
    assert uniforms(noise_keys(1, np.array([2])), 3, 2).round(6).tolist() == want


def test_every_choice_is_as_likely_as_any_other():
    length, count = np.full(len(KEYS), 5), np.full(len(KEYS), 2)
    chosen = choose(KEYS, 0, count, length, 9)
    assert (chosen.sum(axis=1) == 2).all() and not chosen[:, 5:].any()
    _, times = np.unique(chosen @ (1 << np.arange(9)), return_counts=True)
    assert len(times) == 10 and abs(times - 400).max() < 5 * 400**0.5


@pytest.mark.parametrize("length", [1, 2, 5, 40])
def test_interleaved_spans_have_the_tokens_and_the_number_asked_for(length):
    lengths = np.full(len(KEYS), length)
    noise = np.minimum(np.maximum(lengths // 3, 1), lengths - 1)
    spans = np.minimum(np.maximum(noise // 2, 1), noise)
    number = interleaved_spans(KEYS, 0, lengths, noise, spans, 40)
    assert ((number > 0).sum(axis=1) == noise).all() and (number.max(axis=1) == spans).all()
    assert not number[:, 0].any() and not number[:, length:].any()
    for row in number[:50, :length]:
        used = row[row > 0]
        assert (np.diff(used) >= 0).all() and len(np.unique(used)) == row.max()  # numbered from left to right
    starts = np.diff((number > 0).astype(int), axis=1, prepend=0) == 1
    assert (starts.sum(axis=1) == spans).all()  # no two spans touch


@pytest.mark.parametrize("probabilities", [poisson(3.0, 40), geometric(0.2, 10)], ids=["poisson", "geometric"])
@pytest.mark.parametrize("length", [0, 1, 5, 64])
def test_drawn_spans_cover_the_budget(probabilities, length):
    lengths = np.full(len(KEYS), length)
    budget = lengths // 3
    spans = drawn_spans(KEYS, 0, lengths, budget, probabilities, 64)
    items = np.arange(64) < spans.count[:, None]
    assert (spans.length.sum(axis=1) == length).all() and not spans.length[~items].any()
    assert (spans.length[spans.is_span].sum() == budget.sum()) and not (spans.is_span & ~items).any()
    assert ((covered(spans) > 0).sum(axis=1) == budget).all()
    assert (spans.length[items & ~spans.is_span] == 1).all()
    assert (spans.count <= lengths).all()


def test_drawn_spans_have_the_lengths_of_their_distribution():
    lengths = np.full(len(KEYS), 512)
    spans = drawn_spans(KEYS, 0, lengths, np.full(len(KEYS), 400), poisson(3.0, 40), 512)
    drawn = np.bincount(spans.length[spans.is_span], minlength=12)[:12]
    want = poisson(3.0, 40)[:12] * spans.is_span.sum()
    assert np.abs(drawn / want - 1)[:8].max() < 0.03  # the last span of each row is cut, one in 130


def test_covered_names_the_span_of_each_column():
    spans = drawn_spans(KEYS, 0, np.full(len(KEYS), 20), np.full(len(KEYS), 9), geometric(0.5, 4), 20)
    for row in range(50):
        want = np.zeros(20, int)
        for number, item in enumerate(np.flatnonzero(spans.is_span[row]), 1):
            want[spans.start[row, item] : spans.start[row, item] + spans.length[row, item]] = number
        assert (covered(spans)[row] == want).all()


def test_compact():
    values = np.arange(10, dtype=np.int32).reshape(2, 5)
    out, count = compact(values, np.array([[0, 1, 0, 1, 0], [1, 1, 1, 0, 0]], bool), 4)
    assert out.tolist() == [[1, 3, 0, 0], [5, 6, 7, 0]] and count.tolist() == [2, 3]


def test_distributions():
    assert poisson(3.0, 40).sum() == pytest.approx(1.0) and poisson(3.0, 40) @ np.arange(41) == pytest.approx(3.0)
    assert geometric(0.2, 10) @ np.arange(11) == pytest.approx(3.8, abs=0.01)  # SpanBERT, section 3.1
