"""A run that stops and goes on is the same run: every loss and every parameter, to the last bit."""

import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.recipe import fit, open_for_evaluation, save_json
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, read_metrics
from tests.quick import some
from tests.recipe import tiny

STEPS = 60


def recipe(run_dir: Path, **changes):
    """Dropout, and everything else whose randomness or position could be lost on the way."""
    model = dataclasses.replace(tiny.config().model, dropout=0.1)
    settings = {
        "steps": STEPS,
        "mesh": MeshConfig(data=2, fsdp=2),
        "evaluate": EvaluateConfig(every=20, batch_size=64, batches=2),
        "checkpoint": CheckpointConfig(every=10),
    }
    return tiny.config(run_dir=str(run_dir), model=model, **{**settings, **changes})


def curve(run_dir: Path, split: str = "train") -> dict[int, float]:
    """The loss of each step; a step that is there twice is a mistake."""
    lines = [(line["step"], line["loss"]) for line in read_metrics(run_dir) if line["split"] == split]
    assert [step for step, _ in lines] == sorted({step for step, _ in lines})
    return dict(lines)


def stored(run_dir: Path, step: int) -> dict:
    """The digest of every array of a checkpoint, optimizer state included, and the position in the data."""
    manifest = json.loads((run_dir / "checkpoints" / str(step) / "manifest" / "manifest.json").read_text())
    return {"leaves": manifest["leaves"], "meta": manifest["meta"]}


def params_of(run_dir: Path) -> dict[str, np.ndarray]:
    import jax

    params = open_for_evaluation(run_dir, step=STEPS)[1]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(params)}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Sixty steps without a stop."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    fit(recipe(folder))
    return folder


@pytest.fixture(scope="module")
def first_half(tmp_path_factory):
    """Thirty steps and a stop."""
    folder = tmp_path_factory.mktemp("first_half") / "run"
    fit(recipe(folder, steps=30))
    return folder


@pytest.fixture
def half(first_half, tmp_path):
    """A copy of it, to go on with."""
    return shutil.copytree(first_half, tmp_path / "run")


def test_resumed_equals_uninterrupted(straight, half):
    """Thirty steps, a stop, thirty more: the 60-step curve from step 1 on, and the same state at its end."""
    assert curve(half) == {step: loss for step, loss in curve(straight).items() if step <= 30}
    fitted = fit(recipe(half))
    assert (fitted.step, fitted.ended) == (STEPS, "finished")
    assert curve(half) == curve(straight) and len(curve(straight)) == STEPS
    assert stored(half, STEPS)["leaves"] == stored(straight, STEPS)["leaves"]
    ours, theirs = params_of(half), params_of(straight)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


@pytest.mark.slow
def test_the_curve_depends_on_where_it_stands(straight, tmp_path):
    """The comparison above can fail: another seed gives another curve from the first step on."""
    fit(recipe(tmp_path / "run", steps=3, seed=1))
    assert all(curve(straight)[step] != loss for step, loss in curve(tmp_path / "run").items())


MIXED = MeshConfig(data=2, tensor=2)


@pytest.mark.parametrize(
    "mesh", some([MeshConfig(data=8), MeshConfig(data=1), MIXED], [MIXED]), ids=["8x1x1", "1x1x1", "2x1x2"]
)
def test_resumed_on_another_mesh(straight, half, mesh):
    fit(recipe(half, mesh=mesh))
    ours, theirs = curve(half), curve(straight)
    assert [ours[step] for step in range(1, 31)] == [theirs[step] for step in range(1, 31)]
    np.testing.assert_allclose([ours[step] for step in range(31, 61)], [theirs[step] for step in range(31, 61)], atol=1e-5)


def test_without_a_checkpoint_it_starts_again(straight, tmp_path):
    """Killed before the first save: the log holds steps that the second start must not keep."""
    fit(recipe(tmp_path / "run", steps=5, checkpoint=CheckpointConfig(every=5)))
    (tmp_path / "run" / "checkpoints" / "5").rename(tmp_path / "gone")
    fit(recipe(tmp_path / "run", steps=10))
    assert curve(tmp_path / "run") == {step: loss for step, loss in curve(straight).items() if step <= 10}


def test_goes_on_from_what_a_killed_save_set_aside(straight, half, capsys):
    """Killed while another checkpoint of that step was being written."""
    (half / "checkpoints" / "30").rename(half / "checkpoints" / "30.aside")
    fit(recipe(half, steps=33))
    assert "restored step 30" in capsys.readouterr().out
    assert curve(half) == {step: loss for step, loss in curve(straight).items() if step <= 33}


def test_damaged_newest_goes_on_from_the_one_before(straight, half, capsys):
    (half / "checkpoints" / "30" / "manifest" / "manifest.json").write_text("{}")
    fit(recipe(half))
    assert "warning: checkpoint of step 30 is damaged" in capsys.readouterr().out
    assert curve(half) == curve(straight)
    assert stored(half, STEPS)["leaves"] == stored(straight, STEPS)["leaves"]


@contextlib.contextmanager
def command_line(*arguments: str):
    """`jaxllm ...` in its own process, on one device."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "jaxllm", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_steps(process: subprocess.Popen, run_dir: Path, steps: int) -> None:
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            if len(read_metrics(run_dir)) >= steps:
                return
        time.sleep(0.01)
    pytest.fail(f"the run ended too early: {process.communicate()}")


@pytest.mark.parametrize("number", some([signal.SIGTERM, signal.SIGINT], [signal.SIGTERM]), ids=lambda number: number.name)
def test_signal_finishes_the_step_and_saves(tmp_path, number):
    """Exit code 0, the command that resumes, a checkpoint of the step where it stopped; then the same curve."""
    run_dir = tmp_path / "a run"
    endless = recipe(run_dir, steps=10**6, mesh=MeshConfig(data=1), checkpoint=CheckpointConfig(every=10**6, keep_best=0))
    save_json(dataclasses.replace(endless, evaluate=EvaluateConfig(every=10**6)), tmp_path / "recipe.json")
    with command_line("train", str(tmp_path / "recipe.json")) as process:
        wait_for_steps(process, run_dir, 10)
        process.send_signal(number)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    said = re.search(rf"stopped by {number.name} after step (\d+), which is saved. Go on with: jaxllm (train .+)\n", out)
    assert said is not None, out
    stopped, command = int(said[1]), shlex.split(said[2])
    assert command == ["train", str(run_dir)]
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == [str(stopped)]
    assert list(curve(run_dir)) == list(range(1, stopped + 1))
    if number == signal.SIGINT:
        return  # what follows would be the same
    with command_line(*command, "--steps", str(stopped + 10)) as process:
        out, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (0, ""), out
    assert f"restored step {stopped}" in out
    fit(recipe(tmp_path / "straight", steps=stopped + 10, mesh=MeshConfig(data=1)))
    assert curve(run_dir) == curve(tmp_path / "straight")
