"""A search with runs that train nothing: what it finds, what it gives up, and that a kill changes nothing."""

import json
import signal
import subprocess
import sys

import optuna
import pytest

from jaxllm.checkpoint import Best
from jaxllm.sweep import Searched
from jaxllm.training import EvaluateConfig, NonFiniteLoss
from tests.recipe import tiny
from tests.sweep.fake import SPACE, a_sweep, fake_fit, loss_of, run_quietly, use

EVERY_THIRD = EvaluateConfig(every=3)


def facts(done: Searched) -> list[dict]:
    """What must not depend on how often a search was cut off."""
    return [{**vars(trial), "seconds": None, "run_dir": trial.run_dir.name} for trial in done.trials]


def test_a_search_comes_near_the_best_values(tmp_path, monkeypatch):
    use(monkeypatch, fake_fit())
    done = run_quietly(a_sweep(18, prune="none"), tmp_path / "s")
    best = done.best
    assert best is not None and best.value is not None and best.value < 2.15 and best.values["batch_size"] == 16
    assert best.value == pytest.approx(loss_of(tiny.config(), 12), abs=1.0) and len(done.trials) == 18
    kept = optuna.load_study(study_name="sweep", storage=f"sqlite:///{tmp_path / 's' / 'optuna.db'}")
    assert kept.best_trial.number == best.number  # the two agree on what is good
    assert done.trials[0].values == {"optimizer.learning_rate": 1e-3, "batch_size": 8}  # the recipe's own come first
    assert done.importance["optimizer.learning_rate"] > done.importance["batch_size"] > 0


def test_a_high_metric_can_be_the_good_one(tmp_path, monkeypatch):
    use(monkeypatch, fake_fit(), Best("accuracy", "highest"))
    done = run_quietly(a_sweep(12), tmp_path / "s")
    values = [trial.value for trial in done.trials if trial.ending == "complete" and trial.value is not None]
    assert done.best is not None and done.best.value == max(values) > min(values)


def test_bad_trials_are_given_up(tmp_path, monkeypatch):
    use(monkeypatch, fake_fit())
    done = run_quietly(a_sweep(12, evaluate=EVERY_THIRD), tmp_path / "s")
    pruned = [trial for trial in done.trials if trial.ending == "pruned"]
    assert pruned and all(trial.points[-1][0] < 12 for trial in pruned)
    assert done.best is not None and all((trial.value or 0.0) > (done.best.value or 0.0) for trial in pruned)
    assert not [
        t for t in run_quietly(a_sweep(12, evaluate=EVERY_THIRD, prune="none"), tmp_path / "n").trials if t.ending == "pruned"
    ]
    hyperband = run_quietly(a_sweep(12, evaluate=EVERY_THIRD, prune="hyperband"), tmp_path / "h")
    assert any(trial.ending == "pruned" for trial in hyperband.trials)


def test_diverged_and_impossible_trials_are_told_and_passed_over(tmp_path, monkeypatch):
    def loss(recipe, step):
        if recipe.optimizer.learning_rate > 0.01:
            raise NonFiniteLoss("loss must be finite: got inf")
        return loss_of(recipe, step)

    use(monkeypatch, fake_fit(loss))
    space = ("optimizer.learning_rate=0.0001..0.1:log", "model.embed_dim=16,18", "model.num_heads=2,4")
    done = run_quietly(a_sweep(14, space), tmp_path / "s")
    by_ending = {trial.ending: trial for trial in done.trials}
    assert by_ending["diverged"].said == "loss must be finite: got inf" and by_ending["diverged"].value is None
    assert "embed_dim" in (by_ending["refused"].said or "") and by_ending["refused"].values["model.num_heads"] == 4
    assert done.best is not None and done.best.ending == "complete" and len(done.trials) == 14


def test_no_combination_is_tried_twice(tmp_path, monkeypatch):
    use(monkeypatch, fake_fit())
    done = run_quietly(a_sweep(50, ("batch_size=4,8,16", "model.num_layers=1..2")), tmp_path / "s")
    tried = [tuple(trial.values.items()) for trial in done.trials]
    assert len(tried) == len(set(tried)) == 6


@pytest.mark.parametrize(("cut", "at"), [(0, 6), (7, 3)])
def test_a_search_that_was_cut_off_goes_on_as_if_it_were_not(tmp_path, monkeypatch, cut, at):
    sweep = a_sweep(9, evaluate=EVERY_THIRD)
    use(monkeypatch, fake_fit())
    whole = run_quietly(sweep, tmp_path / "whole")
    left = [cut]

    def loss(recipe, step):
        if step == at and recipe.run_dir.endswith(f"trial-{cut}") and left:
            left.pop()
            raise KeyboardInterrupt
        return loss_of(recipe, step)

    use(monkeypatch, fake_fit(loss))
    with pytest.raises(KeyboardInterrupt):
        run_quietly(sweep, tmp_path / "cut")
    kept = optuna.load_study(study_name="sweep", storage=f"sqlite:///{tmp_path / 'cut' / 'optuna.db'}").trials
    assert [trial.state.name for trial in kept][-1] == "RUNNING" and len(kept) == cut + 1
    assert facts(run_quietly(sweep, tmp_path / "cut")) == facts(whole)


KILLED = """
import os, signal, sys
from pathlib import Path
import pytest
from tests.sweep.fake import a_sweep, fake_fit, loss_of, run_quietly, use

def loss(recipe, step):
    if step == 12 and recipe.run_dir.endswith("trial-3"):
        os.kill(os.getpid(), signal.SIGKILL)
    return loss_of(recipe, step)

use(pytest.MonkeyPatch(), fake_fit(loss))
run_quietly(a_sweep(6), Path(sys.argv[1]))
"""


def test_kill_9_in_a_trial_is_survived(tmp_path, monkeypatch):
    dead = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "cut")], capture_output=True, timeout=300)
    assert dead.returncode == -signal.SIGKILL, dead.stderr.decode()[-2000:]
    use(monkeypatch, fake_fit())
    whole = run_quietly(a_sweep(6), tmp_path / "whole")
    assert facts(run_quietly(a_sweep(6), tmp_path / "cut")) == facts(whole)


def test_a_signal_stops_the_search_with_the_trial_in_it(tmp_path, monkeypatch):
    use(monkeypatch, fake_fit(ended=lambda recipe: "SIGTERM" if recipe.run_dir.endswith("trial-2") else "finished"))
    done = run_quietly(a_sweep(6, evaluate=EVERY_THIRD), tmp_path / "s")
    assert done.stopped == "SIGTERM" and [trial.number for trial in done.trials] == [0, 1]
    use(monkeypatch, fake_fit())
    assert [trial.number for trial in run_quietly(a_sweep(6, evaluate=EVERY_THIRD), tmp_path / "s").trials] == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]


def test_more_trials_go_on_and_another_search_is_refused(tmp_path, monkeypatch):
    use(monkeypatch, fake_fit())
    first = run_quietly(a_sweep(3), tmp_path / "s")
    more = run_quietly(a_sweep(5), tmp_path / "s")
    assert facts(more)[:3] == facts(first) and len(more.trials) == 5
    with pytest.raises(ValueError, match="holds another sweep: space is .* choose another --sweep-dir, or go on with that one"):
        run_quietly(a_sweep(5, SPACE[:1]), tmp_path / "s")
    with pytest.raises(ValueError, match="holds another sweep: batch_size is 8 there and 16 here"):
        run_quietly(a_sweep(5, batch_size=16), tmp_path / "s")
    with pytest.raises(ValueError, match="holds another sweep: evaluate.every is 6 there and 3 here"):
        run_quietly(a_sweep(5, evaluate=EVERY_THIRD), tmp_path / "s")


def test_the_folder_is_kept_from_others(tmp_path, monkeypatch):
    from jaxllm.sweep.sweep_folder import claimed

    use(monkeypatch, fake_fit())
    with claimed(tmp_path / "s"), pytest.raises(ValueError, match="another process sweeps in"):
        run_quietly(a_sweep(2), tmp_path / "s")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(ValueError, match="is not the folder of a sweep"):
        run_quietly(a_sweep(2), tmp_path / "other")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sweep.json").write_text(json.dumps({"search": {}}))
    with pytest.raises(ValueError, match="must describe a sweep"):
        run_quietly(a_sweep(2), tmp_path / "broken")
