"""One of four processes is killed, or freezes, at a random moment: the others end soon and say which, and the run goes on."""

import dataclasses
import re
import signal

import pytest

from jaxllm.cli import run
from jaxllm.recipe import save_json
from jaxllm.sharding import MeshConfig
from tests.distributed.kills import COUNT, finish, kill_again_and_again, recipe
from tests.distributed.launch import commands, processes, training
from tests.recipe import tiny

KILLS = 10


@pytest.mark.slow
def test_one_of_four_is_killed_again_and_again(tmp_path):
    """The others end within a minute and say which, and the run goes on as one that nobody disturbed."""
    kills = kill_again_and_again(tmp_path, KILLS)
    assert max(kill.seconds for kill in kills) < 60 and {kill.victim for kill in kills} == set(range(COUNT))
    reached = kills[-1].step
    assert reached > 0
    ours, theirs = finish(tmp_path, reached + 3)
    assert list(ours) == list(range(1, reached + 4)) and ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("step_seconds", [12, 900])
def test_one_freezes(tmp_path, victim, step_seconds):
    """It is not dead, so nothing breaks: the others see after `watch.step_seconds` that nothing moves, and which is silent; or
    after 40 s that it says nothing, where steps may take longer."""
    save_json(recipe(steps=10**6, mesh=MeshConfig(data=2)), tmp_path / "recipe.json")
    arguments = (f"{tmp_path}/recipe.json", "--run-dir", f"{tmp_path}/run", "--watch.step-seconds", str(step_seconds))
    with training(2, *arguments) as both:
        both[0].wait_for("  loss ")
        frozen = both[victim].signal(signal.SIGSTOP)
        other = both[1 - victim]
        assert other.wait(60) == 1, other.said
    assert other.ended - frozen < (40 if step_seconds == 12 else 60)
    seconds = r"1\d" if step_seconds == 12 else r"4\d"
    if victim == 0:
        told = rf"error: process 0 \(\S+\), the coordinator, has said nothing for {seconds} s"
    elif step_seconds == 12:
        told = rf"error: no process has moved for {seconds} s: the others wait for process 1 \(\S+\), silent"
    else:
        told = rf"error: process 1 \(\S+\) has said nothing for {seconds} s"
    assert re.search(told, other.said), other.said
    assert "the stacks of process" in other.said and "in train" in other.said


@pytest.mark.slow
def test_one_raises(tmp_path):
    """The error of one process, here a data set that its host does not have, is told by all."""
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 500)
    build = ["data", "build", "mine", f"{tmp_path}/text.txt", "--split-by", "characters", "--data-dir", f"{tmp_path}/data"]
    assert run(build) == 0
    data = dataclasses.replace(tiny.config().data, dataset="mine")
    save_json(recipe(mesh=MeshConfig(data=2), data=data), tmp_path / "recipe.json")
    both = commands(2, f"{tmp_path}/recipe.json", "--run-dir", f"{tmp_path}/run")
    with processes(both, own=[{"JAXLLM_DATA": f"{tmp_path}/data"}, {"JAXLLM_DATA": f"{tmp_path}/empty"}]) as (first, second):
        assert (first.wait(120), second.wait(120)) == (1, 2)
    assert re.search(r"error: process 1 \(\S+\) failed: found no data set 'mine'", first.said), first.said
    assert "error: found no data set 'mine'" in second.said and "Traceback" not in second.said
    assert abs(first.ended - second.ended) < 20
