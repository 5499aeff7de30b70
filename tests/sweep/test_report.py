"""The page and the figures of a sweep."""

import json
import xml.etree.ElementTree as xml

import pytest

from jaxllm.sweep import RepeatConfig, Sweep, describe, repeat, write_results, write_sweep_report
from jaxllm.sweep.axis import Axis, metric_axis
from jaxllm.training import EvaluateConfig
from tests.recipe import tiny
from tests.sweep.fake import a_sweep, fake_fit, loss_of, run_quietly, use


def pictures(page: str) -> list[xml.Element]:
    return [xml.fromstring(piece.split("</svg>")[0].join(("<svg", "</svg>"))) for piece in page.split("<svg")[1:]]


def test_a_search_is_told_on_one_page_and_as_json(tmp_path, monkeypatch):
    use(monkeypatch, fake_fit(lambda recipe, step: 300.0 if recipe.optimizer.learning_rate > 0.05 else loss_of(recipe, step)))
    done = run_quietly(a_sweep(16, evaluate=EvaluateConfig(every=3)), tmp_path / "s<b>")
    page, results = write_sweep_report(done).read_text("utf-8"), json.loads(write_results(done).read_text("utf-8"))
    assert done.best is not None and results["best"]["number"] == done.best.number and results["whole"] is True
    assert len(results["trials"]) == 16 and results["best"]["command"] == f"jaxllm train '{done.best.run_dir}/recipe.json'"
    assert describe(done).startswith(f"best: trial {done.best.number}, loss {done.best.value:.4f}")
    assert "<b>" not in page.split("<h1>")[1].split("</h1>")[0] and "http" not in page
    drawn = pictures(page)
    assert len(drawn) == 2 + bool(done.importance) + 2 + 1  # history, curves, importance, a slice a field, parallel lines
    dots = [len([each for each in picture if each.tag == "circle"]) for picture in drawn]
    assert dots[0] == 16 and dots[-2] == dots[-3] == 16
    assert len([each for each in drawn[-1] if each.tag == "polyline"]) == 16
    for picture in drawn:
        *_, width, height = map(float, picture.attrib["viewBox"].split())
        for dot in picture.iter("circle"):
            assert 0 <= float(dot.attrib["cx"]) <= width and 0 <= float(dot.attrib["cy"]) <= height


def test_the_command_of_the_best_trial_is_that_of_the_recipe_with_its_values(tmp_path, monkeypatch):
    from dataclasses import replace

    use(monkeypatch, fake_fit())
    done = run_quietly(replace(a_sweep(2), train=("jaxllm", "train", "configs/x.py", "--steps", "12")), tmp_path / "s")
    assert done.best is not None
    assert f"jaxllm train configs/x.py --steps 12 {' '.join(done.best.options)}" in describe(done)


def test_a_repetition_is_told_on_one_page_and_as_json(tmp_path, monkeypatch):
    use(monkeypatch, fake_fit(lambda recipe, step: 2.0 + 0.1 * recipe.seed + 1 / step))
    done = repeat(Sweep(recipe=tiny.config(), config=RepeatConfig(seeds=(0, 2))), tmp_path / "s", say=lambda line: None)
    page, results = write_sweep_report(done).read_text("utf-8"), json.loads(write_results(done).read_text("utf-8"))
    assert "2.1833 ± 0.1414" in page and "validation loss" in describe(done) and "2.1833 ± 0.1414" in describe(done)
    assert results["spreads"]["validation loss"]["mean"] == pytest.approx(2.0 + 1 / 12 + 0.1)
    assert len(pictures(page)) == 1 and "seed-2" in page


def test_nothing_that_came_through_is_told_too(tmp_path, monkeypatch):
    use(monkeypatch, fake_fit(lambda recipe, step: float("nan")))
    done = run_quietly(a_sweep(3), tmp_path / "s")
    assert [trial.ending for trial in done.trials] == ["diverged"] * 3 and done.best is None
    assert "no trial came to its end" in describe(done)
    assert "diverged" in write_sweep_report(done).read_text("utf-8")
    assert json.loads(write_results(done).read_text("utf-8"))["best"] is None


@pytest.mark.parametrize(
    ("low", "high", "log"), [(1e-4, 1e-2, True), (3e-4, 5e-4, True), (1e-9, 1.0, True), (0.0, 1.0, False), (2.1, 2.13, False)]
)
def test_ticks_are_few_and_within(low, high, log):
    axis = Axis(low=low, high=high, log=log)
    places = [place for place, _ in axis.ticks()]
    assert 1 <= len(places) <= 7 and places == sorted(set(places)) and all(0.0 <= place <= 1.0 for place in places)
    assert axis.place(low) < axis.place(high) == axis.place(high * 10) < 1.0


def test_one_bad_value_does_not_flatten_the_others():
    assert metric_axis([2.0, 2.1, 2.2, 300.0], "lowest").high < 3.0
    assert metric_axis([0.9, 0.8, 0.85, 0.0], "highest").low > 0.5
