"""kill -9 at random moments, again and again, while checkpoints are written all the time: the run is still the same run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.checkpoint.on_disk import OnDisk
from jaxllm.recipe import fit, save_json
from jaxllm.training import EvaluateConfig, LogConfig, read_metrics
from tests.recipe import tiny

EVERY = 5


def recipe(run_dir: Path, steps: int):
    return tiny.config(
        run_dir=str(run_dir),
        steps=steps,
        evaluate=EvaluateConfig(every=10**6, batch_size=64, batches=1),
        checkpoint=CheckpointConfig(every=EVERY, keep_best=0),
        log=LogConfig(every=EVERY, tensorboard=False),
    )


def start(*arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "jaxllm", "train", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_first_step(process: subprocess.Popen) -> str:
    """Reads what the run prints until the line of its first step."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "  loss " in line:
            return said
    raise AssertionError(f"the run ended before its first step:\n{said}")


def wait_for_checkpoint(checkpoints: Path) -> None:
    """Until one more is begun than there is."""
    before, end = set(checkpoints.glob("*")), time.monotonic() + 60
    while set(checkpoints.glob("*")) <= before and time.monotonic() < end:
        time.sleep(0.002)


def kill(process: subprocess.Popen) -> str:
    """kill -9; what the run had printed since."""
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"the run ended by itself:\n{said}"
    return said


def curve(run_dir: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(run_dir) if line["split"] == "train"]


def arrays(run_dir: Path, step: int) -> dict:
    """The digest of every array of a checkpoint."""
    return json.loads((run_dir / "checkpoints" / str(step) / "manifest" / "manifest.json").read_text())["leaves"]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [6, 20])
def test_killed_run_is_the_same_run(tmp_path, kills):
    """One run, killed again and again: in every fourth life before its first step, in another within half a second after it, in
    the others when it begins a checkpoint, or soon after."""
    run_dir = tmp_path / "run"
    checkpoints = run_dir / "checkpoints"
    save_json(recipe(run_dir, steps=10**6), tmp_path / "recipe.json")
    random = np.random.default_rng(0)
    to_first_step, half_written, reached, resumed_from = 4.0, 0, 0, set()
    for life in range(kills):
        begin = time.monotonic()
        process = start(str(run_dir if (run_dir / "recipe.json").exists() else tmp_path / "recipe.json"))
        said = ""
        if life % 4 == 1:
            time.sleep(random.uniform(0, to_first_step))
        else:
            said = wait_for_first_step(process)
            to_first_step = time.monotonic() - begin
            if life % 2 == 0:
                wait_for_checkpoint(checkpoints)
            time.sleep(random.uniform(0, 0.5))
        said += kill(process)
        assert "damaged" not in said and "Traceback" not in said
        assert "restored" not in said or f"restored step {reached}\n" in said
        saved = OnDisk(checkpoints).steps()
        assert saved == sorted(saved) and all(step % EVERY == 0 for step in saved) and len(saved) <= 3
        half_written += any(not path.name.isdecimal() for path in checkpoints.glob("*"))
        assert not saved or saved[-1] >= reached
        reached = saved[-1] if saved else 0
        resumed_from.add(reached)
    few = kills < 20  # then none may have come in the middle of a checkpoint
    assert len(resumed_from) > kills // 4 and (half_written > 0 or few)  # else the kills came too early to show anything
    last = reached + 3
    process = start(str(run_dir), "--steps", str(last))
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and f"restored step {reached}\n" in said, said
    assert OnDisk(checkpoints).steps()[-1] == last and all(path.name.isdecimal() for path in checkpoints.iterdir())
    fit(recipe(tmp_path / "straight", steps=last))
    assert curve(run_dir) == curve(tmp_path / "straight")
    assert [step for step, _ in curve(run_dir)] == list(range(1, last + 1))
    assert arrays(run_dir, last) == arrays(tmp_path / "straight", last)
