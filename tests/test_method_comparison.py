"""The comparison of fine-tuning methods: which learning rates it tries, and that it goes on from what it has measured."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BEST = {"full": 3e-6, "head": 1e-2, "lora": 3e-2}
"""The rate at which each method is best in these tests."""


@pytest.fixture
def compared(monkeypatch, tmp_path):
    """The script, with a stand-in for its runs that writes down which were asked for; and its file."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "benchmark"))
    script, asked = importlib.import_module("method_comparison"), []
    script.on = on = []  # the cores of each run

    def run(command, **options):
        base, name, seed, rate = command[command.index(sys.executable) :][2:6]
        on.append(command[2] if command[0] == "taskset" else None)
        asked.append((name, int(seed), float(rate), "--tuning" in command))
        if name == "bitfit":
            return subprocess.CompletedProcess(command, 1, "", "Traceback\nValueError: method BitFit needs biases\n")
        if float(rate) > 0.5:
            return subprocess.CompletedProcess(command, 1, "", "Traceback\njaxllm.training.loop.NonFiniteLoss: loss nan\n")
        if name == "vera":
            return subprocess.CompletedProcess(command, 1, "", "killed\n")
        value = 1 - abs(float(rate) - BEST[name]) - 0.01 * int(seed) * (int(seed) < 3)
        shown = {
            "accuracy": {"value": value, "low": value - 0.1, "high": value + 0.1}, "loss": 0.5, "trainable_parameters": 1234,
            "peak_mb": 1000.0, "step_ms": 10.0, "seconds": 2.0, "file_bytes": 5000,
            "forgetting": {"of": "next tokens", "tokens": 9, "before": 3.0, "after": 3.25},
        }  # fmt: skip
        return subprocess.CompletedProcess(command, 0, f"said on the way\n{json.dumps(shown)}\n", "")

    monkeypatch.setattr(script.subprocess, "run", run)
    return script, asked, tmp_path / "kept.json"


def kept(script, path):
    return script.Kept(path, {"steps": 40})


def test_tuning_goes_beyond_the_ends_as_far_as_it_may(compared):
    script, asked, path = compared
    script.tune(kept(script, path), "smollm2", "full", None)
    assert [rate for _, _, rate, _ in asked] == [1e-5, 3e-5, 1e-4, 3e-6, 1e-6]
    script.tune(kept(script, path), "smollm2", "lora", None)
    assert [rate for name, _, rate, _ in asked if name == "lora"] == [3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
    assert all(tuning and seed == script.TUNING_SEED for _, seed, _, tuning in asked)
    found = kept(script, path).found
    assert [script.best_rate(found["tuning"][name]) for name in ("full", "lora")] == [BEST["full"], BEST["lora"]]


def test_tuning_stops_where_the_best_is_between_others(compared):
    script, asked, path = compared
    script.tune(kept(script, path), "smollm2", "head", None)
    assert [rate for _, _, rate, _ in asked] == [3e-3, 1e-2, 3e-2]


def test_it_goes_on_from_what_is_there(compared):
    script, asked, path = compared
    found = kept(script, path)
    found.found["tuning"]["head"] = {"0.003": {"accuracy": {"value": 0.1}, "loss": 1.0}, "0.01": {"diverged": "loss nan"}}
    found.write()
    script.tune(kept(script, path), "smollm2", "head", None)
    assert [rate for _, _, rate, _ in asked] == [3e-2, 1e-1]
    for _ in range(2):
        for seed in range(2):
            script.run_once(kept(script, path), "smollm2", "head", seed, None)
    assert asked[2:] == [("head", 0, 3e-2, False), ("head", 1, 3e-2, False)]


def test_two_runs_at_a_time_on_a_core_each(compared, monkeypatch):
    script, asked, path = compared
    monkeypatch.setattr(script.os, "sched_getaffinity", lambda _: {3, 5})
    recipe = script.recipe_of("minilm", "full", 0, 1e-3, folder=None, pretrained=None, tuning=False)
    words = ["minilm", "--kept", str(path), "--methods", "full", "head", "lora", "--jobs", "2"]
    for more in (["--tune"], ["--seeds", "2"]):
        monkeypatch.setattr(script.sys, "argv", ["method_comparison.py", *words, *more])
        script.main()
    found = script.Kept(path, script.settings_of(recipe)).found
    assert {name: len(runs) for name, runs in found["runs"].items()} == {"full": 2, "head": 2, "lora": 2}
    assert len(asked) == 6 + sum(map(len, found["tuning"].values())) and set(script.on) == {"3", "5"}


def test_rates_come_first_and_other_settings_are_refused(compared):
    script, _, path = compared
    with pytest.raises(SystemExit, match="head has no learning rate yet: run with --tune first, or with --default-rates"):
        script.run_once(kept(script, path), "smollm2", "head", 0, None)
    kept(script, path).write()
    with pytest.raises(SystemExit, match="holds runs of other settings"):
        script.Kept(path, {"steps": 41})


def test_default_rates_need_no_tuning_and_are_not_mixed_with_it(compared, monkeypatch):
    script, asked, path = compared
    words = ["method_comparison.py", "smollm2", "--kept", str(path), "--methods", "full", "head", "--seeds", "1"]
    monkeypatch.setattr(script.sys, "argv", [*words, "--default-rates"])
    script.main()
    assert asked == [("full", 0, 1e-4, False), ("head", 0, 3e-3, False)]
    monkeypatch.setattr(script.sys, "argv", words)
    with pytest.raises(SystemExit, match="holds runs of other settings"):
        script.main()


def test_a_method_without_a_place_is_kept_as_refused_and_a_failure_is_told(compared):
    script, asked, path = compared
    for _ in range(2):
        script.tune(kept(script, path), "smollm2", "bitfit", None)
        script.run_once(kept(script, path), "smollm2", "bitfit", 0, None)
    assert len(asked) == 1
    assert kept(script, path).found["refused"] == {"bitfit": "method BitFit needs biases"}
    with pytest.raises(SystemExit, match="vera, seed 100, rate 0.003:\nkilled"):
        script.tune(kept(script, path), "smollm2", "vera", None)


def test_a_rate_that_diverges_is_not_the_best(compared):
    script, _, path = compared
    found = kept(script, path)
    assert script.measure(found, "smollm2", "head", 0, 1.0, None, tuning=True) == {
        "diverged": "jaxllm.training.loop.NonFiniteLoss: loss nan"
    }
    assert script.best_rate({"1": {"diverged": ""}, "0.1": {"accuracy": {"value": 0.5}, "loss": 1.0}}) == 0.1


def test_the_table_has_means_and_deviations_best_first(compared):
    script, _, path = compared
    for name in ("full", "head"):
        script.tune(kept(script, path), "smollm2", name, None)
        for seed in range(3):
            script.run_once(kept(script, path), "smollm2", name, seed, None)
    lines = script.table(script.summary(kept(script, path).found)).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["full", "head"]
    assert lines[2] == "| full | 3e-06 | 99.0 ± 1.0 | 3.000 to 3.250 | 1,234 | 1,000 | 10 | 5 |"


@pytest.mark.parametrize("base", ["smollm2", "minilm", "vit"])
def test_every_run_is_a_recipe(base, compared):
    script, _, _ = compared
    for name in script.methods_of(base):
        if name != "scratch":  # needs the model itself
            recipe = script.recipe_of(base, name, 1, 1e-3, folder=None, pretrained="model", tuning=True)
            assert recipe.data.test_split is None and recipe.method is not None
            assert recipe.data.validation_split and (base != "smollm2" or recipe.data.validation_split == "validation[:200]")
    assert ("scratch" in script.methods_of(base)) == (base == "vit")
