"""Several seeds and folds: which runs there are, and mean and deviation of what they came to."""

import json
import statistics
from pathlib import Path

import pytest

from jaxllm.checkpoint import Best
from jaxllm.data.source import find_set, find_text_set
from jaxllm.data.task_data import Records
from jaxllm.data.tfds_builder import write_set
from jaxllm.recipe import Recipe, load_json
from jaxllm.sweep import RepeatConfig, Sweep, repeat
from jaxllm.sweep.field import with_values
from jaxllm.sweep.folds import fold_splits
from jaxllm.sweep.outcome import measures
from jaxllm.sweep.repeat import variants_of
from jaxllm.training import NonFiniteLoss
from tests.recipe import tiny
from tests.sweep.fake import fake_fit, use


@pytest.fixture
def many(tmp_path) -> Recipe:
    """A recipe whose training split has 23 records."""
    splits = {"train": [(f"id{number}", f"text {number}") for number in range(23)], "validation": [("v", "x y z")]}
    write_set("many", splits, tmp_path / "data", description="many")
    return with_values(tiny.config(), {"data.dataset": "many", "data.data_dir": str(tmp_path / "data")})


def texts(recipe: Recipe, split: str) -> list[str]:
    return list(find_text_set("many", data_dir=recipe.data.data_dir).open(split))


@pytest.mark.parametrize(("folds", "split"), [(2, "train"), (5, "train"), (23, "train"), (3, "train[2:9]+train[50%:]")])
def test_each_record_is_held_out_once_and_trained_on_in_all_other_folds(many, folds, split):
    many = with_values(many, {"data.train_split": split})
    everything, found = texts(many, split), fold_splits(many, folds)
    held_out = [texts(many, held) for _, held in found]
    assert len(found) == folds and sorted(text for part in held_out for text in part) == sorted(everything)
    for (train, _), held in zip(found, held_out, strict=True):
        assert sorted(texts(many, train) + held) == sorted(everything) and not set(texts(many, train)) & set(held)
    sizes = [len(part) for part in held_out]
    assert max(sizes) - min(sizes) <= max(len(everything) // (10 * folds), 1) * 10


def test_a_fold_is_spread_over_the_split(many):
    (_, held), *_ = fold_splits(many, 2)
    numbers = [int(text.split()[1]) for text in texts(many, held)]
    assert min(numbers) < 3 and max(numbers) > 18


def asked(rows: list[tuple[str, str, str]], folder: Path) -> Recipe:
    """Questions about texts."""
    write_set("asked", {"train": rows}, folder, description="", features={"id": None, "context": None, "question": None})
    return with_values(tiny.config(), {"data.dataset": "asked", "data.data_dir": str(folder)})


@pytest.mark.parametrize("place", [lambda number: number // 7, lambda number: number % 9, lambda number: number // 7 % 5])
def test_questions_about_one_text_are_in_one_fold(tmp_path, place):
    """Whether they stand behind each other or not."""
    rows = [(f"q{number}", f"text {place(number)}", "who?") for number in range(60)]
    recipe = asked(rows, tmp_path)
    folder, held_out = find_set("asked", data_dir=str(tmp_path)).folder, []
    for train, held in fold_splits(recipe, 3):
        inside, outside = ({record["context"] for record in Records(folder, split)} for split in (held, train))
        assert inside and outside and not inside & outside
        held_out += [record["id"] for record in Records(folder, held)]
    assert sorted(held_out) == sorted(name for name, *_ in rows)


def test_more_folds_than_texts_are_refused(tmp_path):
    recipe = asked([(f"q{number}", f"text {number // 7}", "who?") for number in range(20)], tmp_path)
    with pytest.raises(ValueError, match="--folds must be at most the texts of 'train.0:10.' that are asked about: got 3"):
        fold_splits(with_values(recipe, {"data.train_split": "train[0:10]"}), 3)


def test_what_a_task_writes_is_counted_too(tmp_path):
    record = {"step": 4, "split": "validation", "loss": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    written = {"examples": 3, "metrics": {"rouge_l": {"value": 21.5}, "bleu": {"value": 8.0}}, "answers": []}
    split = {"split": "validation", "step": 4, "loss": 1.0, "metrics": {"token_accuracy": {"value": 0.5}}, "written": written}
    (tmp_path / "results.json").write_text(json.dumps({"step": 4, "validation": split}))
    assert measures(tmp_path, Best()) == {
        "validation loss": 1.0,
        "validation token accuracy": 0.5,
        "validation rouge l": 21.5,
        "validation bleu": 8.0,
    }


def test_no_step_is_chosen_by_what_a_fold_holds_out(many):
    careful = with_values(many, {"evaluate.patience": 2, "checkpoint.keep_best": 3})
    for name, recipe in variants_of(careful, RepeatConfig(seeds=(), folds=2)).items():
        assert (recipe.evaluate.patience, recipe.checkpoint.keep_best) == (None, 0), name
    assert variants_of(careful, RepeatConfig(seeds=(1, 2)))["seed-1"].evaluate.patience == 2


def test_more_folds_than_records_are_refused(many):
    with pytest.raises(ValueError, match="--folds must be at most the 23 records of 'train': got 24"):
        fold_splits(many, 24)


def loss_of_seed(recipe: Recipe, step: int) -> float:
    return 2.0 + 0.1 * recipe.seed**2 + 1.0 / step


def test_seeds_give_mean_and_deviation(tmp_path, monkeypatch):
    use(monkeypatch, fake_fit(loss_of_seed))
    sweep, told = Sweep(recipe=tiny.config(), config=RepeatConfig(seeds=(0, 1, 2))), []
    done = repeat(sweep, tmp_path / "s", say=lambda line: None, after_run=lambda so_far: told.append(len(so_far.runs)))
    losses = [2.0 + 1 / 12 + x for x in (0.0, 0.1, 0.4)]
    (name, loss), *others = done.spreads.items()
    assert name == "validation loss" and told == [1, 2, 3]
    assert loss.mean == pytest.approx(statistics.fmean(losses)) and loss.deviation == pytest.approx(statistics.stdev(losses))
    assert (loss.low, loss.high, loss.count) == (pytest.approx(losses[0]), pytest.approx(losses[2]), 3)
    assert [name for name, _ in others] == ["validation accuracy", "test loss"]
    assert done.spreads["test loss"].mean == pytest.approx(loss.mean + 0.5)
    assert load_json(tmp_path / "s" / "seed-2" / "recipe.json").seed == 2


def test_runs_that_are_done_are_not_run_again_and_a_failed_one_is_left_out(tmp_path, monkeypatch):
    begun = []

    def loss(recipe, step):
        begun.append(recipe.seed)
        if recipe.seed == 1:
            raise NonFiniteLoss("loss must be finite")
        return loss_of_seed(recipe, step)

    use(monkeypatch, fake_fit(loss))
    for seeds in ((0, 1), (0, 1, 2)):
        done = repeat(Sweep(recipe=tiny.config(), config=RepeatConfig(seeds=seeds)), tmp_path / "s", say=lambda line: None)
    assert begun.count(0) == 2 and begun.count(2) == 2  # two evaluations of one run each
    assert [run.ending for run in done.runs] == ["complete", "diverged", "complete"]
    assert done.spreads["validation loss"].count == 2


def test_a_signal_stops_it_and_each_fold_runs_with_each_seed(tmp_path, monkeypatch, many):
    stops = lambda recipe: "SIGINT" if recipe.run_dir.endswith("fold-1-seed-3") else "finished"  # noqa: E731
    use(monkeypatch, fake_fit(loss_of_seed, stops))
    sweep = Sweep(recipe=many, config=RepeatConfig(seeds=(3, 4), folds=2))
    done = repeat(sweep, tmp_path / "s", say=lambda line: None)
    assert done.stopped == "SIGINT" and [run.name for run in done.runs] == ["fold-0-seed-3", "fold-0-seed-4"]
    use(monkeypatch, fake_fit(loss_of_seed))
    done = repeat(sweep, tmp_path / "s", say=lambda line: None)
    assert done.stopped is None and [run.name for run in done.runs][2:] == ["fold-1-seed-3", "fold-1-seed-4"]
    trained = load_json(tmp_path / "s" / "fold-1-seed-4" / "recipe.json").data
    assert (trained.train_split, trained.validation_split) == fold_splits(many, 2)[1]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"seeds": (0,)}, "--seeds must be two or more"),
        ({"seeds": (1, 1)}, "--seeds must differ: got 1,1"),
        ({"folds": 1}, "--folds must be at least 2: got 1"),
    ],
)
def test_what_cannot_be_repeated_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        RepeatConfig(**config)
