"""One run in several processes: the same run whatever their number, stopped by all together, refused where they differ."""

import dataclasses
import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.cli import run
from jaxllm.recipe import fit, save_json
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, read_metrics
from tests.distributed.launch import commands, processes, train_to_end, training
from tests.recipe import tiny

ALONE = MeshConfig(data=1)


def recipe(**changes):
    model = dataclasses.replace(tiny.config().model, dropout=0.1)
    settings = {"mesh": ALONE, "model": model, "evaluate": EvaluateConfig(every=4, batch_size=64, batches=2)}
    return tiny.config(**{**settings, **changes})


def curve(run_dir: Path, split: str = "train") -> dict[int, float]:
    """The loss of each step; a step that is there twice is a mistake."""
    lines = [(line["step"], line["loss"]) for line in read_metrics(run_dir) if line["split"] == split]
    assert [step for step, _ in lines] == sorted({step for step, _ in lines})
    return dict(lines)


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """Twelve steps in one process, on one device."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    fit(recipe(run_dir=str(folder)))
    return folder


@pytest.mark.parametrize("four", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_then_four_then_one_process_are_one_run(four, straight, tmp_path, capsys):
    """Parameters split over two processes, then the batch and the heads over four, then all in one: the same examples in the
    same order, and losses within 1e-5."""
    run_dir = tmp_path / "run"
    save_json(recipe(), tmp_path / "recipe.json")
    two = train_to_end(
        2, f"{tmp_path}/recipe.json", "--run-dir", str(run_dir), "--steps", "4", "--mesh.data=1", "--mesh.fsdp=2"
    )
    assert "mesh fsdp 2, 2 processes on 1 host" in two[0] and (run_dir / "results.json").is_file()
    others = two[1:]
    if four:
        told = train_to_end(4, str(run_dir), "--steps", "8", "--mesh.data=2", "--mesh.fsdp=1", "--mesh.tensor=2")
        assert "restored step 4" in told[0] and "mesh data 2 x tensor 2, 4 processes" in told[0]
        others += told[1:]
    for said in others:
        assert "loss" not in said and "restored" not in said and "report" not in said
    capsys.readouterr()
    assert run(["train", str(run_dir), "--steps", "12", "--mesh.fsdp=1", "--mesh.tensor=1", "--mesh.data=1"]) == 0
    assert f"restored step {8 if four else 4}" in capsys.readouterr().out
    ours, theirs = curve(run_dir), curve(straight)
    assert list(ours) == list(theirs) == list(range(1, 13))
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=0, atol=1e-5)
    ours, theirs = curve(run_dir, "validation"), curve(straight, "validation")
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=0, atol=1e-5)
    results = json.loads((run_dir / "results.json").read_text())
    assert results["step"] == 12 and "ROMEO:" in results["sample"] and (run_dir / "report.html").is_file()
    assert json.loads((run_dir / "checkpoints/12/manifest/manifest.json").read_text())["meta"]["progress"]["examples"] == 96


def test_a_signal_to_one_stops_all_after_one_step(tmp_path):
    """It is saved once, by all together, and process 0 says how to go on."""
    endless = recipe(steps=10**6, mesh=MeshConfig(), checkpoint=CheckpointConfig(every=10**6, keep_best=0))
    save_json(dataclasses.replace(endless, evaluate=EvaluateConfig(every=10**6)), tmp_path / "recipe.json")
    run_dir = tmp_path / "run"
    with training(2, f"{tmp_path}/recipe.json", "--run-dir", str(run_dir)) as (first, second):
        first.wait_for("  loss ")
        second.signal(signal.SIGTERM)
        assert (first.wait(60), second.wait(60)) == (0, 0), first.said + second.said
    said = re.search(r"stopped by SIGTERM \(process 1, \S+\) after step (\d+), which is saved", first.said)
    assert said is not None, first.said
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == [said[1]]
    assert list(curve(run_dir)) == list(range(1, int(said[1]) + 1))


def test_processes_with_different_recipes_are_refused(tmp_path):
    """All of them say what differs and where, and nothing is written."""
    save_json(recipe(mesh=MeshConfig()), tmp_path / "recipe.json")
    both = commands(2, f"{tmp_path}/recipe.json", "--run-dir", f"{tmp_path}/run")
    both[1] += ["--optimizer.learning-rate", "0.5", "--seed", "3"]
    with processes(both) as started:
        assert [each.wait(60) for each in started] == [2, 2]
    for each in started:
        assert "all processes must be the same as process 0" in each.said, each.said
        assert re.search(r"process 1 \(\S+\): recipe\.seed is 3 and not 0; recipe\.optimizer\.learning_rate is 0\.5", each.said)
        assert "Traceback" not in each.said
    assert not (tmp_path / "run").exists()


def test_when_one_is_killed_the_other_says_so(tmp_path):
    """Within moments, and the run goes on from its newest checkpoint."""
    run_dir = tmp_path / "run"
    endless = recipe(steps=10**6, mesh=MeshConfig(), checkpoint=CheckpointConfig(every=5, keep_best=0))
    save_json(dataclasses.replace(endless, evaluate=EvaluateConfig(every=10**6)), tmp_path / "recipe.json")
    with training(2, f"{tmp_path}/recipe.json", "--run-dir", str(run_dir)) as (first, second):
        first.wait_for("  loss ")
        killed = second.signal(signal.SIGKILL)
        assert first.wait(60) == 1, first.said
    assert re.search(r"error: process 1 \(\S+\) is gone .* start all processes again", first.said), first.said
    assert first.ended - killed < 20
