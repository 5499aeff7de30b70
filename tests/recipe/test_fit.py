"""A run from its recipe to its report, and what ends one early."""

import dataclasses
import errno
import itertools
import json
import math
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.checkpoint import CheckpointConfig, SaveError, Store
from jaxllm.hardware import ProfileConfig
from jaxllm.recipe import find_recipe, fit, load
from jaxllm.recipe.run_folder import choose_folder
from jaxllm.training import CausalLM, EvaluateConfig, LogConfig, NonFiniteLoss, OptimizerConfig, ScheduleConfig, read_metrics
from tests.recipe import tiny

assemble_module = sys.modules["jaxllm.recipe.assemble"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit") / "run"
    recipe = tiny.config(run_dir=str(folder), log=LogConfig(every=3, tensorboard=True), profile=ProfileConfig(steps=(5, 6)))
    fit(recipe, command="jaxllm train tests/recipe/tiny.py")
    return folder


def test_a_run_folder_holds_everything(run_dir):
    files = {"recipe.json", "environment.json", "metrics.jsonl", "results.json", "report.html"}
    assert {path.name for path in run_dir.iterdir()} == files | {"tokenizer", "checkpoints", "tensorboard"}
    environment = json.loads((run_dir / "environment.json").read_text())
    assert environment["versions"]["jax"] == jax.__version__ and "commit" in environment
    events = [path.name for path in (run_dir / "tensorboard").iterdir()]
    assert any("tfevents" in name for name in events) and "plugins" in events  # the profile of steps 5 and 6


def test_metrics_have_a_line_a_step_with_every_number(run_dir):
    lines = read_metrics(run_dir)
    train = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in train] == list(range(1, 13))
    for line in train:
        assert all(isinstance(line[name], float) for name in ("loss", "grad_norm", "learning_rate", "tokens_per_second", "mfu"))
    validation = [line for line in lines if line["split"] == "validation"]
    assert [line["step"] for line in validation] == [6, 12] and validation[0]["tokens"] == 4 * 64 * 16


def test_the_schedule_is_the_one_asked_for(run_dir):
    """Warm-up of 2 steps from 0, then half a cosine from 1e-3 to a tenth of it at step 60."""
    rates = [line["learning_rate"] for line in read_metrics(run_dir) if line["split"] == "train"]
    cosine = 0.5 * (1 + math.cos(math.pi * (11 - 2) / (60 - 2)))
    assert rates[:3] == pytest.approx([0.0, 5e-4, 1e-3]) and rates[11] == pytest.approx(1e-3 * (0.1 + 0.9 * cosine))


def test_recipe_json_is_resolved_and_runs_again_to_the_same_losses(run_dir, tmp_path):
    recipe = find_recipe(str(run_dir / "recipe.json"))
    assert recipe.model.vocab_size == 65
    fit(dataclasses.replace(recipe, run_dir=str(tmp_path / "again"), profile=ProfileConfig()))
    losses = lambda folder: [line["loss"] for line in read_metrics(folder)]  # noqa: E731
    assert losses(tmp_path / "again") == losses(run_dir)


def test_the_report_shows_the_command_and_the_sample(run_dir):
    page = (run_dir / "report.html").read_text()
    assert "jaxllm train tests/recipe/tiny.py" in page and "<svg" in page
    assert json.loads((run_dir / "results.json").read_text())["parameters"] == 7888
    assert "ROMEO:" in page and not re.search(r"(src|href)=.http", page)


def test_load_gives_the_model_back(run_dir):
    run = load(run_dir)
    assert run.step == 12 and run([run.tokenizer.encode("To be")]).logits.shape == (1, 5, 65)
    first, second = run.generate(["ROMEO:", "O "], max_tokens=4)
    assert len(first) == len(second) == 4
    assert run.generate("ROMEO:", max_tokens=4) == [first]


def test_patience_ends_a_run_that_no_longer_improves(tmp_path):
    """With a rate of almost nothing the loss cannot improve by more than rounding; after a while it does not at all."""
    recipe = tiny.config(
        run_dir=str(tmp_path / "run"),
        steps=40,
        optimizer=OptimizerConfig(name="sgd", learning_rate=1e-30),
        evaluate=EvaluateConfig(every=2, batch_size=64, batches=1, patience=3),
    )
    fitted = fit(recipe)
    assert (fitted.ended, fitted.step) == ("patience", 8)  # best at 2; then 4, 6, 8 without a better one
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert fit(recipe).step == 8 and (tmp_path / "run" / "metrics.jsonl").read_text() == lines


def test_the_best_checkpoint_is_kept_and_loaded(tmp_path):
    """The first step has rate 0, the others one that wrecks the model: step 1 is best, and that is what load takes."""
    recipe = tiny.config(
        run_dir=str(tmp_path / "run"),
        optimizer=OptimizerConfig(learning_rate=1.0, clip_norm=None, schedule=ScheduleConfig(warmup_steps=2)),
        evaluate=EvaluateConfig(every=1, batch_size=64, batches=2),
        checkpoint=CheckpointConfig(every=4, keep_last=1, keep_best=1),
    )
    fit(recipe)
    losses = {line["step"]: line["loss"] for line in read_metrics(tmp_path / "run") if line["split"] == "validation"}
    best = min(losses, key=lambda step: losses[step])
    kept = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit())
    assert best == 1 and kept == [1, 12]
    assert load(tmp_path / "run").step == best


def break_batches(monkeypatch, first: int, last: int):
    """Makes the loss of these steps NaN, by a mark of 1000 on the tokens of their batches."""
    make_loss, place, steps = CausalLM.make_loss, assemble_module.Job._place, itertools.count(1)

    def make_broken_loss(objective, model, config):
        loss = make_loss(objective, model, config)

        def broken(params, batch, key):
            marked = batch["tokens"][0, 0] >= 1000
            sums = loss(params, {**batch, "tokens": batch["tokens"] % 1000}, key)
            return jax.tree.map(lambda x: x * jnp.where(marked, jnp.nan, 1.0), sums)

        return broken

    def marking_place(job, batch, batch_size):
        is_training = len(batch["tokens"]) == 8
        mark = 1000 if is_training and first <= next(steps) <= last else 0
        return place(job, {**batch, "tokens": batch["tokens"] + np.int32(mark)}, batch_size)

    monkeypatch.setattr(CausalLM, "make_loss", make_broken_loss)
    monkeypatch.setattr(assemble_module.Job, "_place", marking_place)


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(tmp_path, monkeypatch):
    """The checkpoint of the step before is suspect: its parameters are what gave this loss."""
    break_batches(monkeypatch, 6, 6)
    recipe = tiny.config(run_dir=str(tmp_path / "run"), checkpoint=CheckpointConfig(every=1, keep_last=3))
    message = (
        r"got loss nan, gradient norm nan at step 6; the last good checkpoint is step 4 \(step 5 is suspect: delete it to go "
        r"on from an earlier one\)\. The batch: tiny_shakespeare:train tokens "
    )
    with pytest.raises(NonFiniteLoss, match=message):
        fit(recipe)
    assert not (tmp_path / "run" / "report.html").exists()


def test_skipping_leaves_the_update_out_and_goes_on(tmp_path, monkeypatch, capsys):
    break_batches(monkeypatch, 4, 5)
    fitted = fit(tiny.config(run_dir=str(tmp_path / "run"), on_nonfinite="skip"))
    assert fitted.step == 12 and capsys.readouterr().out.count("update skipped") == 2
    train = [line for line in read_metrics(tmp_path / "run") if line["split"] == "train"]
    assert [line["step"] for line in train if line["loss"] is None] == [4, 5]
    assert train[-1]["loss"] < 4.15  # it has learnt in the other steps


def test_skipping_ends_where_nothing_else_happens(tmp_path, monkeypatch):
    break_batches(monkeypatch, 2, 10**6)
    with pytest.raises(NonFiniteLoss, match="at step 11"):
        fit(tiny.config(run_dir=str(tmp_path / "run"), steps=20, on_nonfinite="skip"))


def test_the_average_of_parameters_is_what_is_evaluated(tmp_path):
    recipe = tiny.config(run_dir=str(tmp_path / "run"), optimizer=OptimizerConfig(ema=0.999, learning_rate=1e-2))
    fit(recipe)
    lines = read_metrics(tmp_path / "run")
    train = [line["loss"] for line in lines if line["split"] == "train"]
    validation = [line["loss"] for line in lines if line["split"] == "validation"]
    assert train[-1] < train[0] - 0.5 and validation[-1] > train[0] - 0.3  # the average has hardly moved in 12 steps


def test_a_longer_run_keeps_its_schedule(tmp_path):
    """A recipe that leaves the end of its decay to its length: going on for longer does not move it."""
    schedule = ScheduleConfig(warmup_steps=2)
    recipe = tiny.config(run_dir=str(tmp_path / "run"), steps=6, optimizer=OptimizerConfig(schedule=schedule))
    fit(recipe)
    fit(dataclasses.replace(recipe, steps=9))
    rates = [line["learning_rate"] for line in read_metrics(tmp_path / "run") if line["split"] == "train"]
    assert rates[6:] == pytest.approx([1e-4] * 3) and rates[5] > 1e-4


def test_one_process_a_folder(tmp_path):
    recipe = tiny.config(run_dir=str(tmp_path / "run"))
    folder, _ = choose_folder(recipe)
    with folder.claimed(), pytest.raises(ValueError, match="another process is training in"):
        fit(recipe)
    assert not (tmp_path / "run").exists()  # nothing came to be in it


def test_other_data_is_refused(tmp_path, monkeypatch):
    recipe = tiny.config(run_dir=str(tmp_path / "run"), steps=4)
    fit(recipe)
    monkeypatch.setattr(assemble_module.Job, "identity", {"tokenizer": "same?", "data": "other"})
    with pytest.raises(ValueError, match="the tokenizer of .* must be the one that its checkpoint of step 4 was trained with"):
        fit(dataclasses.replace(recipe, steps=8))


class TestFullDisk:
    """The check for free space says there is none, at some steps."""

    def fit(self, folder, monkeypatch, full_at):
        real = Store._clear

        def clear(store, step, size):
            if step in full_at:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(store, step, size)

        monkeypatch.setattr(Store, "_clear", clear)
        return fit(tiny.config(run_dir=str(folder), checkpoint=CheckpointConfig(every=4, keep_best=0)))

    def test_on_the_way_the_run_goes_on(self, tmp_path, monkeypatch, capsys):
        assert self.fit(tmp_path / "run", monkeypatch, full_at={8}).step == 12
        said = capsys.readouterr().out
        assert "warning: checkpoint of step 8 could not be saved" in said and "Training goes on" in said
        assert load(tmp_path / "run").step == 12

    def test_at_the_end_it_is_an_error_and_the_last_good_one_stays(self, tmp_path, monkeypatch):
        with pytest.raises(SaveError, match="checkpoint of step 12 could not be saved"):
            self.fit(tmp_path / "run", monkeypatch, full_at={12})
        assert load(tmp_path / "run").step == 8
        assert not (tmp_path / "run" / "results.json").exists()
