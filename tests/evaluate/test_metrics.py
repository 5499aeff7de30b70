"""Metrics against scikit-learn and SciPy, and against the rules as they are written elsewhere."""

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics as theirs

from jaxllm.evaluate.answers import answer_scores, words_of
from jaxllm.evaluate.metrics import (
    Entity,
    Scores,
    class_scores,
    correlation_scores,
    entities,
    entity_scores,
    mean_of,
    set_scores,
)

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("classes, count", [(2, 50), (5, 200), (7, 12)])
def test_classes(classes, count):
    wanted, found = RANDOM.integers(0, classes, (2, count))
    found[: count // 2] = wanted[: count // 2]
    values = Scores(count, class_scores(wanted, found, classes)).values()
    assert values == pytest.approx(
        {
            "accuracy": theirs.accuracy_score(wanted, found),
            "macro_f1": theirs.f1_score(wanted, found, average="macro"),
            "matthews": theirs.matthews_corrcoef(wanted, found),
        },
        abs=1e-12,
    )


def test_all_of_one_class():
    wanted, found = np.array([0, 1, 1]), np.array([1, 1, 1])
    values = Scores(3, class_scores(wanted, found, 2)).values()
    assert values["matthews"] == theirs.matthews_corrcoef(wanted, found) == 0


def test_several_classes():
    wanted, found = RANDOM.random((2, 80, 4)) > 0.6
    values = Scores(80, set_scores(wanted, found)).values()
    assert values == pytest.approx(
        {
            "accuracy": theirs.accuracy_score(wanted, found),
            "macro_f1": theirs.f1_score(wanted, found, average="macro"),
            "micro_f1": theirs.f1_score(wanted, found, average="micro"),
        },
        abs=1e-12,
    )


def test_correlations():
    wanted, found = RANDOM.normal(size=(2, 100))
    wanted[:30] = np.round(wanted[:30])  # ties
    found = np.round(found + wanted, 1)
    values = Scores(100, correlation_scores(wanted, found)).values()
    pearson, spearman = scipy.stats.pearsonr(wanted, found)[0], scipy.stats.spearmanr(wanted, found)[0]
    assert values == pytest.approx({"pearson": pearson, "spearman": spearman}, abs=1e-12)
    assert Scores(3, correlation_scores(np.ones(3), np.arange(3.0))).values() == {"pearson": 0.0, "spearman": 0.0}


def chunks(tags):
    """seqeval's default mode, by its rules for where a chunk ends and where one begins."""

    def ends(before, mark, kind_before, kind):
        if before in "ES" or (before in "BI" and mark in "BSO"):
            return True
        return before != "O" and kind_before != kind

    def begins(before, mark, kind_before, kind):
        if mark in "BS" or (before in "ESO" and mark in "EI"):
            return True
        return mark != "O" and kind_before != kind

    found, before, kind_before, begin = [], "O", "", 0
    for place, tag in enumerate([*tags, "O"]):
        mark, kind = tag[0], tag[1:].split("-", 1)[-1] or "_"
        if ends(before, mark, kind_before, kind):
            found.append((kind_before, begin, place))
        if begins(before, mark, kind_before, kind):
            begin = place
        before, kind_before = mark, kind
    return {chunk for chunk in found if chunk[0] != "_"}


def test_entities():
    assert entities("B-PER I-PER O B-LOC B-LOC".split()) == {Entity("PER", 0, 2), Entity("LOC", 3, 4), Entity("LOC", 4, 5)}
    assert entities("I-PER I-LOC O I-LOC".split()) == {Entity("PER", 0, 1), Entity("LOC", 1, 2), Entity("LOC", 3, 4)}
    names = ["O", *(f"{mark}-{kind}" for mark in "BIES" for kind in ("A", "B-C"))]
    for length in range(1, 9):
        for _ in range(60):
            tags = [str(tag) for tag in RANDOM.choice(names[: 5 if length % 2 else None], length)]
            assert entities(tags) == chunks(tags), tags


def test_entity_scores():
    wanted = ["B-A I-A O B-B".split(), "O O".split(), "B-A".split()]
    found = ["B-A I-A O O".split(), "O B-B".split(), "B-A".split()]
    values = Scores(3, entity_scores(wanted, found)).values()
    assert values == pytest.approx({"entity_f1": 4 / 6, "entity_precision": 2 / 3, "entity_recall": 2 / 3, "accuracy": 5 / 7})


def test_answers():
    assert words_of("The  quick, (brown) fox's an ant!") == ["quick", "brown", "foxs", "ant"]
    assert words_of("《红楼梦》 1791年。", by_character=True) == list("红楼梦1791年")
    wanted = [["the cat sat", "a dog"], [], ["the"], ["in Bergen"], []]
    given = ["Cat sat.", "", "", "near Bergen, Norway", "something"]
    scores = Scores(5, answer_scores(wanted, given))
    assert scores.values() == pytest.approx({"exact_match": 3 / 5, "f1": (3 + 2 * 1 / 5) / 5})
    chinese = Scores(1, answer_scores([["一七九一年"]], ["一七九二年"], by_character=True)).values()
    assert chinese == pytest.approx({"exact_match": 0.0, "f1": 0.8})


def test_intervals():
    """Of a mean: as wide as theory has it, the same for the same seed."""
    right = np.arange(1000) % 10 < 8
    scores = Scores(1000, {"accuracy": mean_of(right)})
    value, low, high = scores.measured(seed=1)["accuracy"]
    assert value == 0.8 and low < value < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 1000), rel=0.1)
    assert scores.measured(seed=1) == scores.measured(seed=1) != scores.measured(seed=2)
