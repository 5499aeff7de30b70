"""A real run that the sweep ends early, and that goes on afterwards."""

import json

from jaxllm.checkpoint import Best
from jaxllm.recipe import is_run_folder
from jaxllm.sweep.attempt import PRUNED, attempt
from jaxllm.sweep.field import with_values
from jaxllm.sweep.outcome import curve, measures
from tests.recipe import tiny


def test_a_run_is_ended_by_its_evaluations_and_can_go_on(tmp_path, capsys):
    changes = {"steps": 4, "evaluate.every": 2, "evaluate.batches": 1, "checkpoint.every": 10, "model.num_layers": 1}
    recipe, place, goal = with_values(tiny.config(), changes), tmp_path / "run", Best()
    told = []
    ended = attempt(recipe, place, "x", lambda step, metrics: told.append((step, metrics["loss"])) or PRUNED)
    assert (ended.ending, ended.said) == ("pruned", None) and told == curve(place, goal) and told[0][0] == 2
    assert "stopped by the sweep after step 2, which is saved" in capsys.readouterr().out
    assert is_run_folder(place) and attempt(recipe, place, "x").ending == "complete"
    assert "restored step 2" in capsys.readouterr().out
    assert [step for step, _ in curve(place, goal)] == [2, 4]
    assert json.loads((place / "results.json").read_text())["peak_memory_bytes"] is None  # the process has had other runs
    assert measures(place, goal)["validation loss"] == min(loss for _, loss in curve(place, goal))
    assert attempt(recipe, place, "x", lambda *_: PRUNED).ending == "complete" and capsys.readouterr().out == ""
