"""A run from its recipe to its report, and what ends one early."""

import dataclasses
import json
import math
import re

import jax
import pytest

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.hardware import ProfileConfig
from jaxllm.recipe import find_recipe, fit, load
from jaxllm.training import EvaluateConfig, LogConfig, NonFiniteLoss, OptimizerConfig, read_metrics
from tests.recipe import tiny


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


def test_the_best_checkpoint_is_kept_and_loaded(tmp_path):
    """A rate so high that the loss gets worse: the best evaluation is an early one, and that is what load takes."""
    recipe = tiny.config(
        run_dir=str(tmp_path / "run"),
        optimizer=OptimizerConfig(learning_rate=1.0, clip_norm=None),
        evaluate=EvaluateConfig(every=1, batch_size=64, batches=2),
        checkpoint=CheckpointConfig(every=4, keep_last=1, keep_best=1),
    )
    fit(recipe)
    losses = {line["step"]: line["loss"] for line in read_metrics(tmp_path / "run") if line["split"] == "validation"}
    best = min(losses, key=lambda step: losses[step])
    kept = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit())
    assert best < 12 and kept == [best, 12]
    assert load(tmp_path / "run").step == best


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(tmp_path):
    recipe = tiny.config(
        run_dir=str(tmp_path / "run"),
        steps=40,
        optimizer=OptimizerConfig(name="sgd", learning_rate=1e30, clip_norm=None, weight_decay=0.0),
        checkpoint=CheckpointConfig(every=1),
    )
    with pytest.raises(
        NonFiniteLoss, match=r"at step \d+; the last good checkpoint is step 1\. The batch: tiny_shakespeare:train"
    ):
        fit(recipe)
    assert not (tmp_path / "run" / "report.html").exists()


def test_skipping_goes_on(tmp_path, capsys):
    recipe = tiny.config(
        run_dir=str(tmp_path / "run"),
        on_nonfinite="skip",
        optimizer=OptimizerConfig(name="sgd", learning_rate=1e30, clip_norm=None, weight_decay=0.0),
        evaluate=EvaluateConfig(every=100, batch_size=64, batches=1),
    )
    assert fit(recipe).step == 12
    assert "update skipped" in capsys.readouterr().out


def test_the_average_of_parameters_is_what_is_evaluated(tmp_path):
    recipe = tiny.config(run_dir=str(tmp_path / "run"), optimizer=OptimizerConfig(ema=0.999, learning_rate=1e-2))
    fit(recipe)
    lines = read_metrics(tmp_path / "run")
    train = [line["loss"] for line in lines if line["split"] == "train"]
    validation = [line["loss"] for line in lines if line["split"] == "validation"]
    assert train[-1] < train[0] - 0.5 and validation[-1] > train[0] - 0.3  # the average has hardly moved in 12 steps
