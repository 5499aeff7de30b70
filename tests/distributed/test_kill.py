"""One of four processes is killed, or freezes, at a random moment: the others end soon and say which, and the run goes on."""

import dataclasses
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.checkpoint.files import finished_steps
from jaxllm.cli import run
from jaxllm.recipe import save_json
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, LogConfig, read_metrics
from tests.distributed.launch import commands, processes, train_to_end, training
from tests.recipe import tiny

KILLS = 10
COUNT = 4
EVERY = 5


def recipe(**changes):
    settings = {
        "mesh": MeshConfig(data=2, fsdp=2),
        "evaluate": EvaluateConfig(every=10**6, batch_size=64, batches=1),
        "checkpoint": CheckpointConfig(every=EVERY, keep_best=0),
        "log": LogConfig(every=EVERY, tensorboard=False),
    }
    return tiny.config(**{**settings, **changes})


def curve(run_dir: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(run_dir) if line["split"] == "train"}


@pytest.mark.slow
def test_one_of_four_is_killed_again_and_again(tmp_path):
    """Every third time before the first step, the coordinator among the killed; each time the run goes on where it was."""
    run_dir = tmp_path / "run"
    save_json(recipe(steps=10**6), tmp_path / "recipe.json")
    random = np.random.default_rng(0)
    seconds, reached, to_first_step = [], 0, 10.0
    for life in range(KILLS):
        source = str(run_dir) if (run_dir / "recipe.json").exists() else f"{tmp_path}/recipe.json"
        victim = life % COUNT if life < COUNT else int(random.integers(COUNT))
        new = ["--run-dir", str(run_dir)] if source.endswith(".json") else []
        with training(COUNT, source, *new, "--connect-timeout", "45") as all_:
            begin = time.monotonic()
            if life % 3 == 2:
                time.sleep(random.uniform(2, to_first_step))
            else:
                all_[0].wait_for("  loss ")
                to_first_step = time.monotonic() - begin
                time.sleep(random.uniform(0, 3))
            killed = all_[victim].signal(signal.SIGKILL)
            others = [each for index, each in enumerate(all_) if index != victim]
            codes = [each.wait(60) for each in others]
        seconds.append(max(each.ended for each in others) - killed)
        print(f"life {life}: process {victim} killed, the others ended after {seconds[-1]:.2f} s", flush=True)
        assert all(codes), codes
        for each in others:
            told = re.search(rf"error: .*process {victim}\b", each.said) or "to come" in each.said
            assert told and "damaged" not in each.said, each.said[-3000:]
        restored = re.search(r"restored step (\d+)", all_[0].said)
        assert restored is None or int(restored[1]) == reached
        saved = finished_steps(run_dir / "checkpoints")
        assert (saved[-1] if saved else 0) >= reached
        reached = saved[-1] if saved else 0
    print("seconds from the kill to the end of the last of the others:", [round(each, 2) for each in seconds])
    assert max(seconds) < 60 and reached > 0
    last = reached + 3
    train_to_end(COUNT, str(run_dir), "--steps", str(last))
    train_to_end(COUNT, f"{tmp_path}/recipe.json", "--run-dir", f"{tmp_path}/straight", "--steps", str(last))
    ours, theirs = curve(run_dir), curve(tmp_path / "straight")
    assert list(ours) == list(range(1, last + 1)) and ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_freezes(tmp_path, victim):
    """It is not dead, so nothing breaks: the others see after `watch.step_seconds` that nothing moves, and which is silent."""
    save_json(recipe(steps=10**6, mesh=MeshConfig(data=2)), tmp_path / "recipe.json")
    arguments = (f"{tmp_path}/recipe.json", "--run-dir", f"{tmp_path}/run", "--watch.step-seconds", "12")
    with training(2, *arguments) as both:
        both[0].wait_for("  loss ")
        frozen = both[victim].signal(signal.SIGSTOP)
        other = both[1 - victim]
        assert other.wait(60) == 1
    assert other.ended - frozen < 40
    if victim == 1:
        assert re.search(r"error: no process has moved for 1\d s: the others wait for process 1 \(\S+\), silent", other.said)
    else:
        assert re.search(r"error: process 0 \(\S+\), the coordinator, has said nothing for 1\d s", other.said)
    assert "the stacks of process" in other.said and "in train" in other.said


@pytest.mark.slow
def test_one_raises(tmp_path):
    """The error of one process, here a data set that its host does not have, is told by all."""
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 500)
    assert run(["data", "build", "mine", f"{tmp_path}/text.txt", "--to", f"{tmp_path}/data"]) == 0
    data = dataclasses.replace(tiny.config().data, dataset="mine")
    save_json(recipe(mesh=MeshConfig(data=2), data=data), tmp_path / "recipe.json")
    both = commands(2, f"{tmp_path}/recipe.json", "--run-dir", f"{tmp_path}/run")
    with processes(both, own=[{"JAXLLM_DATA": f"{tmp_path}/data"}, {"JAXLLM_DATA": f"{tmp_path}/empty"}]) as (first, second):
        assert (first.wait(120), second.wait(120)) == (1, 2)
    assert re.search(r"error: process 1 \(\S+\) failed: found no data set 'mine'", first.said), first.said
    assert "error: found no data set 'mine'" in second.said and "Traceback" not in second.said
    assert abs(first.ended - second.ended) < 20
