"""Mixtures: each set's share, every example once before any comes again, and a stream that follows from seed and position."""

import json
import pickle

import numpy as np
import pytest

from jaxllm.data.rows import Share
from jaxllm.data.tfds_builder import write_set
from jaxllm.finetune.tasks.instruction import InstructionTuning
from jaxllm.finetune.tasks.mixed_rows import SLOTS, mixed_positions, mixing_rates, places_of
from jaxllm.finetune.tasks.mixture import Mixture, _class_weights
from jaxllm.finetune.tasks.task import is_task
from jaxllm.finetune.tasks.text_to_text import TextToText
from jaxllm.models import Transformer
from jaxllm.training import LossConfig
from tests.finetune.tasks.chats import decoder, opened, parameters, tokenizer, turn, write_sets

MODEL = decoder()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    write_sets(folder)
    short = [(f"s:{i}", json.dumps([turn("user", "fish"), turn("assistant", f"bread {i}")]), "") for i in range(5)]
    for name, splits in (("short", ("train", "validation")), ("lonely", ("train",))):
        write_set(name, dict.fromkeys(splits, short), folder, description="",
                  features={"id": None, "messages": None, "tools": None})  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def own_cache(folder, monkeypatch):
    monkeypatch.setenv("JAXLLM_CACHE", str(folder / "cache"))


def test_shares_are_those_of_t5():
    sizes = [100, 10_000, 400]
    np.testing.assert_allclose(mixing_rates(sizes, [1.0, 1.0, 1.0], 1.0, None), np.array(sizes) / 10_500)
    np.testing.assert_allclose(mixing_rates(sizes, [1.0, 1.0, 1.0], 1.0, 500), np.array([100, 500, 400]) / 1000)
    np.testing.assert_allclose(mixing_rates(sizes, [1.0, 1.0, 1.0], 2.0, None), np.array([10, 100, 20]) / 130)
    np.testing.assert_allclose(mixing_rates(sizes, [4.0, 1.0, 1.0], 2.0, None), np.array([20, 100, 20]) / 140)
    assert places_of(np.array([0.5, 0.25, 0.25])).tolist() == [512, 256, 256]
    rare = places_of(np.array([1e-6, 0.3, 0.7 - 1e-6]))
    assert rare.sum() == SLOTS and rare[0] == 1 and abs(rare[1] / SLOTS - 0.3) < 2 / SLOTS


def test_every_set_has_its_share_and_all_of_its_positions():
    places = np.array([700, 200, 124])
    everything = np.arange(5 * SLOTS + 100)
    sets, inside = mixed_positions(everything, places, seed=3)
    for k in range(3):
        assert inside[sets == k].tolist() == list(range((sets == k).sum()))  # in order, without gaps
    assert np.bincount(sets[: 5 * SLOTS]).tolist() == (5 * places).tolist()
    window = np.bincount(sets[1000:1400], minlength=3) / 400
    np.testing.assert_allclose(window, places / SLOTS, atol=0.08)  # mixed within a block, too
    some = np.array([SLOTS, 7, 3 * SLOTS + 5, 6])
    assert np.array_equal(mixed_positions(some, places, 3)[0], sets[some])
    assert np.array_equal(mixed_positions(some, places, 3)[1], inside[some])
    assert not np.array_equal(mixed_positions(everything, places, 4)[0], sets)


def mixed(folder, **changes):
    return Mixture(**({"task": InstructionTuning(), "others": ("short",)} | changes))


def test_rows_of_two_sets(folder):
    data, mixture = opened(folder, "chats"), mixed(folder)
    assert is_task(mixture) and mixture.metrics == InstructionTuning.metrics
    mixture.check(MODEL, data.config, LossConfig())
    rows = mixture.rows(data, MODEL, "train", seed=5)
    assert rows.rows_per_epoch == 29
    numbers = rows._numbers(np.arange(2000)).tolist()
    own, others = [n for n in numbers if n < 24], [n for n in numbers if n >= 24]
    assert rows.describe(numbers.index(own[3]))[0].endswith(f"c:{own[3]}") and max(others) == 28
    assert rows.describe(numbers.index(others[3]))[0].endswith(f"short s:{others[3] - 24}")
    for names, size in ((own, 24), (others, 5)):
        for epoch in range(len(names) // size):
            assert len(set(names[epoch * size : (epoch + 1) * size])) == size  # each once before any comes again
    assert abs(len(others) / 2000 - 5 / 29) < 0.02
    assert len(set(map(tuple, np.reshape(own[: 24 * 20], (20, 24)).tolist()))) == 20  # in a new order each time
    batch = rows.batch(np.arange(40, 56), Share())
    assert set(batch) == set(mixture.fields(data.config)) and batch["tokens"].shape[1] == 160
    again = pickle.loads(pickle.dumps(rows))
    assert again.fingerprint == rows.fingerprint and np.array_equal(
        again.batch(np.arange(40, 56), Share())["tokens"], batch["tokens"]
    )
    text = data.tokenizer.decode(batch["tokens"][batch["segment_ids"] > 0].tolist())
    assert "bread" in text


def test_weight_and_temperature_change_the_shares(folder):
    data = opened(folder, "chats")
    counts = {}
    for name, changes in {
        "plain": {},
        "alike": {"temperature": 100.0},
        "limit": {"limit": 5},
        "weight": {"weights": (5.0, 24.0)},
    }.items():
        rows = mixed(folder, **changes).rows(data, MODEL, "train", seed=5)
        counts[name] = (rows._numbers(np.arange(SLOTS)) >= 24).mean()
    assert counts["plain"] == pytest.approx(5 / 29, abs=0.04)
    for name in ("alike", "limit", "weight"):
        assert counts[name] == pytest.approx(0.5, abs=0.05)


def test_evaluations_are_on_all_sets_and_on_each(folder):
    """Scores of each set are those of that set alone, also of examples drawn for an interval."""
    data, mixture = opened(folder, "chats"), mixed(folder)
    rows = mixture.rows(data, MODEL, "validation", seed=None)
    assert rows.rows_per_epoch == 11 and rows.names == ("chats", "short")
    items, random = np.repeat(np.arange(11), 3), np.random.default_rng(0)
    found = {"items": items, "log_probs": -random.random(33), "best": random.random(33) < 0.5}
    scores = mixture.score(found, rows, data)
    parts = [{name: values[there] for name, values in found.items()} for there in (items < 6, items >= 6)]
    whole, own, other = (InstructionTuning().score(each, rows, data).values() for each in (found, *parts))
    assert scores.values() == whole | {f"chats/{k}": v for k, v in own.items()} | {f"short/{k}": v for k, v in other.items()}
    assert list(scores.values()) == list(mixture.metrics_of(data.config))
    drawn = np.array([10, 0, 7, 7, 3])
    alone = InstructionTuning().score(parts[1], rows, data).statistics["perplexity"]
    assert scores.statistics["short/perplexity"](drawn) == alone(np.array([4, 1, 1]))
    assert scores.count == 11 and mixed(folder, others=("short",)).rows(data, MODEL, "validation", seed=3).seed == 3


def test_an_evaluation_that_ends_early_has_examples_of_each_set(folder):
    data, mixture = opened(folder, "chats"), mixed(folder)
    rows = mixture.rows(data, MODEL, "validation", seed=None)
    items = rows.batch(np.arange(4), Share())["items"]
    numbers = np.unique(items[items > 0]) - 1
    assert (numbers < 6).sum() == (numbers >= 6).sum() == 2
    assert sorted(rows._numbers(np.arange(11)).tolist()) == list(range(11))


def test_a_set_without_the_split_has_no_part_in_it_and_no_metrics(folder):
    """Of two sets of one name the second is numbered."""
    data = opened(folder, "chats")
    mixture = mixed(folder, others=("lonely", f"{folder}/short", "short"))
    rows = mixture.rows(data, MODEL, "validation", seed=None)
    assert rows.names == ("chats", "short", "short-2") and len(mixture.rows(data, MODEL, "train", seed=3).names) == 4
    named = {name.partition("/")[0] for name in mixture.metrics_of(data.config) if "/" in name}
    assert named == {"chats", "short", "short-2"}


def test_each_set_is_asked_in_its_own_words(folder):
    """Two tasks of text to text: rows, what is written, and what one set alone is asked."""
    data = opened(folder, "texts")
    prompts = ("Back: {text}\n", "{text} Forth:")
    mixture = Mixture(task=TextToText(target_len=8), others=("texts",), prompts=prompts)
    mixture.check(MODEL, data.config, LossConfig())
    rows = mixture.rows(data, MODEL, "validation", seed=None)
    (begin, middle), (_, end) = rows.chosen
    asked = [tokenizer().decode(rows.table.item(item, "tokens").tolist()) for item in range(begin, end)]
    assert all(text.startswith("Back: ") for text in asked[:middle]) and not any("Forth:" in text for text in asked[:middle])
    assert all(" Forth:" in text for text in asked[middle:]) and not any(text.startswith("Back: ") for text in asked[middle:])
    assert (
        mixture.task_for("texts", data.config).prompt == prompts[0] and mixture.task_for("others", data.config).prompt is None
    )
    assert {"loss", "rouge_l", "texts/accuracy"} <= {"loss", *mixture.metrics_of(data.config)}
    written = mixture.write(Transformer(MODEL), parameters(MODEL), rows, data, examples=50)
    alone = TextToText(prompt=prompts[0], target_len=8)
    own = alone.write(
        Transformer(MODEL), parameters(MODEL), alone.rows(data, MODEL, "validation", seed=None), data, examples=50
    )
    assert written == own and len(own.texts) == len(rows.records) // 2


def test_balanced_weights_are_those_of_what_is_drawn():
    """A class that has a tenth of one set and nine tenths of another, of which as many are drawn, has half of all."""
    half = SLOTS // 2
    found = _class_weights([(1 / 0.2, 1 / 1.8), (1 / 1.8, 1 / 0.2)], (half, half))
    np.testing.assert_allclose(found, (1.0, 1.0))
    np.testing.assert_allclose(_class_weights([(3.0, 1.0), (3.0, 1.0)], (SLOTS - 100, 100)), (3.0, 1.0))
    assert _class_weights([None, None], (half, half)) is None


def test_refusals(folder):
    data = opened(folder, "chats")
    with pytest.raises(ValueError, match="objective.others must name a set to mix with: got none"):
        Mixture(task=InstructionTuning(), others=())
    with pytest.raises(ValueError, match="objective.temperature must be positive: got 0"):
        mixed(folder, temperature=0.0)
    with pytest.raises(
        ValueError, match=r"objective.weights must be positive, one for `data` and one for each.*got \(1.0,\) for 2"
    ):
        mixed(folder, weights=(1.0,))
    both = dict(task=TextToText(), others=("texts",))
    with pytest.raises(
        ValueError, match="prompts are for the task TextToText, one for `data` and one for .*: got 1 for 2 sets"
    ):
        Mixture(**both, prompts=("{text}",))
    with pytest.raises(ValueError, match="got 2 for 2 sets and InstructionTuning"):
        mixed(folder, prompts=("{text}", "{text}"))
    with pytest.raises(ValueError, match="objective.prompt must have {text} where the text goes: got 'Back'"):
        Mixture(**both, prompts=("{text}", "Back"))
    with pytest.raises(ValueError, match="has no feature 'messages'"):
        mixed(folder, others=("texts",)).rows(data, MODEL, "train", seed=0)
