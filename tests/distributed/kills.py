"""One of four processes is killed at random, again and again; at last the run ends, beside one that nobody disturbed."""

import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.checkpoint.on_disk import OnDisk
from jaxllm.recipe import Recipe, save_json
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, LogConfig, read_metrics
from tests.distributed.launch import train_to_end, training
from tests.recipe import tiny

COUNT = 4
EVERY = 5


@dataclass(frozen=True, kw_only=True)
class Kill:
    victim: int
    """The process that was killed; 0 is the coordinator."""
    seconds: float
    """From the kill until the last of the others had ended."""
    step: int
    """Of the newest checkpoint after it; 0 where there is none yet."""


def recipe(**changes) -> Recipe:
    settings = {
        "mesh": MeshConfig(data=2, fsdp=2),
        "evaluate": EvaluateConfig(every=10**6, batch_size=64, batches=1),
        "checkpoint": CheckpointConfig(every=EVERY, keep_best=0),
        "log": LogConfig(every=EVERY, tensorboard=False),
    }
    return tiny.config(**{**settings, **changes})


def kill_again_and_again(folder: Path, kills: int) -> list[Kill]:
    """The run is in `folder`/run. Every third time the kill comes before the first step. The others must say which process is
    gone, and each time the run must go on from its newest checkpoint."""
    run_dir = folder / "run"
    save_json(recipe(steps=10**6), folder / "recipe.json")
    random = np.random.default_rng(0)
    found: list[Kill] = []
    to_first_step = 10.0
    for life in range(kills):
        goes_on = (run_dir / "recipe.json").exists()
        source = [str(run_dir)] if goes_on else [f"{folder}/recipe.json", "--run-dir", str(run_dir)]
        victim = life % COUNT if life < COUNT else int(random.integers(COUNT))
        with training(COUNT, *source, "--connect-timeout", "30") as all_:
            begin = time.monotonic()
            if life % 3 == 2:
                time.sleep(random.uniform(2, to_first_step))
            else:
                all_[0].wait_for("  loss ")
                to_first_step = time.monotonic() - begin
                time.sleep(random.uniform(0, max(3, to_first_step / 2)))  # on a busy machine a checkpoint takes longer, too
            killed = all_[victim].signal(signal.SIGKILL)
            others = [each for index, each in enumerate(all_) if index != victim]
            codes = [each.wait(60) for each in others]
        assert all(codes), codes
        for each in others:
            told = re.search(rf"error: .*process {victim}\b", each.said) or "to come" in each.said
            assert told and "damaged" not in each.said, each.said[-3000:]
        restored, saved = re.search(r"restored step (\d+)", all_[0].said), OnDisk(run_dir / "checkpoints").steps()
        reached = found[-1].step if found else 0
        assert restored is None or int(restored[1]) == reached, all_[0].said[-3000:]
        found.append(Kill(victim=victim, seconds=max(each.ended for each in others) - killed, step=saved[-1] if saved else 0))
        assert found[-1].step >= reached
        print(f"life {life}: {found[-1]}", flush=True)
    return found


def finish(folder: Path, steps: int) -> tuple[dict[int, float], dict[int, float]]:
    """The loss of each step of the run in `folder`/run, ended after so many, and of one that nobody disturbed."""
    train_to_end(COUNT, f"{folder}/run", "--steps", str(steps))
    train_to_end(COUNT, f"{folder}/recipe.json", "--run-dir", f"{folder}/straight", "--steps", str(steps))
    return curve(folder / "run"), curve(folder / "straight")


def curve(run_dir: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(run_dir) if line["split"] == "train"}
