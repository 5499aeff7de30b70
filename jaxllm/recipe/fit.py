"""A recipe, run: from a fresh state or the newest good checkpoint to the last step, the evaluation and the report."""

import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from jaxllm.checkpoint import Store
from jaxllm.distributed import (
    beat,
    check_same,
    code_facts,
    describe_hosts,
    from_first,
    gather,
    is_first,
    joined,
    limit_time,
    num_processes,
)
from jaxllm.hardware import ProfileConfig, ProfileWindow, StepTimer, set_up
from jaxllm.models import num_params
from jaxllm.recipe.base_identity import check_base
from jaxllm.recipe.choices import describe_choices
from jaxllm.recipe.compared import compare
from jaxllm.recipe.conclude import RESULTS_FILE, WHOLE, Say, conclude
from jaxllm.recipe.job import Job
from jaxllm.recipe.load import assembled, first_state
from jaxllm.recipe.measure import is_measured
from jaxllm.recipe.pretrained import check_rate, described, pretrained_tokenizer
from jaxllm.recipe.program import compile_new
from jaxllm.recipe.rank_log import rank_log
from jaxllm.recipe.recipe import Recipe
from jaxllm.recipe.resolve import best_of
from jaxllm.recipe.run_folder import RunFolder, agree_on_folder
from jaxllm.recipe.serialize import to_tree
from jaxllm.recipe.validate import make_validate
from jaxllm.training import (
    Interrupt,
    Loop,
    Progress,
    RunLog,
    TrainState,
    evaluated,
    out_of_patience,
    train,
)


@dataclass(frozen=True)
class Fitted:
    """How a run ended."""

    run_dir: Path | str
    """The folder, or its URL in a bucket."""
    step: int
    """Steps taken."""
    ended: str
    """"finished", "patience", the name of the signal that stopped it, what the cloud announced, or what `on_evaluation` gave as
    reason."""
    best_loss: float | None
    """Lowest validation loss; None where there was no evaluation."""


OnEvaluation = Callable[[int, dict[str, float]], str | None]
"""`on_evaluation(step, metrics) -> reason`: a reason to end the run there, or None to go on."""


def fit(recipe: Recipe, *, command: str | None = None, on_evaluation: OnEvaluation | None = None) -> Fitted:
    """Trains as the recipe says, in its run folder; goes on where an earlier run in that folder stopped.

        fitted = fit(dataclasses.replace(recipe, steps=100, run_dir="runs/try"))

    With many processes (`jaxllm.distributed.joined`) all of them call it; process 0 prints, logs and reports.

    Args:
      command: what the user typed, for the report.
      on_evaluation: told of each evaluation on the validation split; must say the same on all processes. A run that it ends is
        saved, and goes on like one that a signal stopped.

    Raises:
      ValueError: an impossible recipe, a folder of another run; before anything is written.
      NonFiniteLoss, SaveError: see `training.train`.
    """
    set_up()
    with joined():
        limit_time(step_seconds=recipe.watch.step_seconds, phase_seconds=recipe.watch.phase_seconds)
        if num_processes() > 1:
            _begin("comparing what each runs")
            facts = {**code_facts(), "recipe": to_tree(recipe)}
            check_same(facts, "Start them with the same command, from the same checkout")
        return _fit(recipe, command, on_evaluation or (lambda step, metrics: None))


def _fit(recipe: Recipe, command: str | None, on_evaluation: OnEvaluation) -> Fitted:
    check_rate(recipe)
    _begin("looking at the run folder")
    folder, recipe = agree_on_folder(described(recipe))
    _begin("opening the data")
    job = assembled(recipe, folder.load_tokenizer() if folder.resumes else pretrained_tokenizer(recipe))
    if num_processes() > 1:
        check_same(job.identity, "Give all hosts the same data set, and build it once")
    notes, say = job.notes, _say(is_first())  # reads all splits of a task: one that cannot be used is refused here
    _begin("claiming the run folder")
    with folder.claimed(), Interrupt() as interrupt:
        say("\n".join((_describe(job, folder), *describe_choices(job), *notes)))
        _begin("comparing with the model as it was")
        if (compared := compare(job)) is not None:
            say(compared)
        _begin("compiling")
        train_step, compile_seconds = _timed(job.compile_step)
        _begin("waiting for the others to compile")
        gather("compiled")
        with closing(folder.store(job.recipe)) as store, joined():
            state, progress, identity = _start(job, folder, store, say)
            if _is_whole(job, folder, progress):
                there, asked = progress.step, job.recipe.steps
                place = f"of {asked}" if there <= asked else f"where {asked} are asked for"
                say(f"already at step {there} {place}: to go on, give more than {there} with --steps")
                return Fitted(folder.place, progress.step, "finished", progress.best_loss)
            rate: Any = job.optimizer[1](progress.step)
            if rate <= 0 < progress.step:
                say(
                    f"warning: the learning rate came to 0 at step {job.recipe.optimizer.schedule.decay_steps}, and more steps "
                    "change nothing: begin a new run with this one as --pretrained, or its adapter as --adapter"
                )
            _begin("opening the log", progress.step)
            folder.write_description(job.recipe, job.tokenizer)
            resume_step = progress.step if folder.resumes else None
            log_config, steps = job.recipe.log, job.recipe.steps
            with RunLog(folder.path, log_config, steps, resume_step, folder.publish, enabled=is_first()) as log:
                loop = _loop(job, folder, store, log, train_step, progress, identity, on_evaluation)
                loop.timer.compile_seconds = compile_seconds
                _begin("waiting for the others to be ready", progress.step)
                gather("ready")  # on CPU the first collective waits for the others for 30 s only
                with closing(loop.batches):
                    state, ended = train(loop, state, progress, interrupt)
                if ended in WHOLE and not is_measured(job):  # else measured at its best, in `conclude`
                    _evaluate_test(job, state, log, progress)
        compile_seconds += getattr(train_step, "later_seconds", 0.0)
        conclude(job, folder, state, progress, ended, compile_seconds, command, say)
    return Fitted(folder.place, progress.step, ended, progress.best_loss)


def _describe(job: Job, folder: RunFolder) -> str:
    mesh = " x ".join(f"{name} {size}" for name, size in job.mesh.shape.items() if size > 1) or "one device"
    count, learning = num_params(job.abstract.whole), num_params(job.abstract.params)
    learns = f" ({learning:,} learn, {learning / count:.2%})" if learning < count else ""
    device = job.mesh.devices.flat[0].device_kind
    used, there = job.mesh.devices.size, jax.device_count()
    why = "the batch does not divide by more" if job.recipe.mesh.data is None else "the mesh is smaller"
    hosts = f", {describe_hosts()}" if num_processes() > 1 else ""
    idle = f" ({there - used} of {there} devices idle: {why})" if used < there else ""
    return (
        f"{'resuming' if folder.resumes else 'new run'} {folder.place}: {job.recipe.name}, {count:,} parameters{learns}, "
        f"{_a_step(job)} a step, {device}, mesh {mesh}{hosts}{idle}"
    )


def _a_step(job: Job) -> str:
    each, unit = job.recipe.objective.tokens(job.recipe.data), job.recipe.objective.reports.unit
    return f"{job.recipe.batch_size} {unit}" if each == 1 else f"{job.recipe.batch_size} x {each} {unit}"


def _is_whole(job: Job, folder: RunFolder, progress: Progress) -> bool:
    """Whether nothing is left to do: the last step taken, or patience at its end, and the results of that step written."""
    results = folder.path / RESULTS_FILE
    if progress.step < job.recipe.steps and not out_of_patience(job.recipe.evaluate, progress):
        return False
    return from_first(lambda: results.is_file() and json.loads(results.read_text(encoding="utf-8"))["step"] == progress.step)


def _start(job: Job, folder: RunFolder, store: Store, say: Say) -> tuple[TrainState, Progress, dict[str, str]]:
    """The newest good checkpoint, or a fresh state where there is none; and what the run must find again."""
    identity, metric = job.identity, job.recipe.evaluate.metric
    _begin("restoring a checkpoint")
    if folder.resumes and from_first(store.recover):
        restored = store.restore(job.abstract._replace(frozen={}), on_damaged=lambda _, message: say(f"warning: {message}"))
        for name, fingerprint in identity.items():
            if restored.meta[name] != fingerprint:
                raise ValueError(
                    f"the {name} of {folder.place} must be the one that its checkpoint of step {restored.step} was trained "
                    f"with: it has changed since; put the old {name} back, or start a new run in another --run-dir"
                )
        say(f"restored step {restored.step}")
        state = restored.state
        if jax.tree.leaves(job.abstract.frozen):  # what has not learnt is what the run began with
            first = first_state(job.recipe, job.model, job.mesh, job.abstract)
            check_base(job.recipe, first.identity, restored)
            state, identity = state._replace(frozen=first.state.frozen), identity | first.identity
        return state, Progress(**restored.meta["progress"]).going_by(metric), identity
    _begin("making the first parameters")
    state, new, base = first_state(job.recipe, job.model, job.mesh, job.abstract)
    if new:
        say(f"not in {job.recipe.pretrained}, so new: {', '.join(new)}")
    return state, Progress().going_by(metric), identity | base


def _loop(
    job: Job,
    folder: RunFolder,
    store: Store,
    log: RunLog,
    train_step: Callable,
    progress: Progress,
    identity: dict[str, str],
    on_evaluation: OnEvaluation,
) -> Loop:
    recipe = job.recipe

    def describe_examples(position: int) -> str:
        rows = (job.train.describe(position + row) for row in range(recipe.batch_size))
        documents = list(dict.fromkeys(document for row in rows for document in row))
        more = f" and {len(documents) - 16} more" if len(documents) > 16 else ""
        return ", ".join(documents[:16]) + more

    validate = make_validate(job)

    def evaluate(state: TrainState) -> dict[str, float]:
        return validate(state, lambda number: beat(progress.step, "evaluating"))

    return Loop(
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        train_step=train_step,
        compile_new=partial(compile_new, train_step),
        batches=job.batches(progress.examples),
        evaluate=evaluate if recipe.data.validation_split else None,
        after_evaluation=on_evaluation,
        observe=rank_log(folder.path, recipe.method, progress.step if folder.resumes else None),
        config=recipe.evaluate,
        best=best_of(recipe),
        checkpoint_every=recipe.checkpoint.every,
        keep_best=recipe.checkpoint.keep_best > 0,
        store=store,
        log=log,
        timer=StepTimer(tokens_per_step=job.tokens_per_step, first_step=progress.step),
        profile=ProfileWindow(recipe.profile if is_first() else ProfileConfig(), folder.path / "tensorboard"),
        utilization=job.utilization,
        unit=recipe.objective.reports.unit,
        describe_examples=describe_examples,
        skip_nonfinite=recipe.on_nonfinite == "skip",
        identity=identity,
    )


def _evaluate_test(job: Job, state: TrainState, log: RunLog, progress: Progress) -> None:
    """The test figure, where the data set has a test split."""
    test = job.data.test_split
    if test is not None:
        params = evaluated(state)
        metrics = job.evaluate_params(params, test, on_batch=lambda number: beat(progress.step, "evaluating"))
        log.evaluation(progress.step, "test", metrics)


def _begin(doing: str, step: int = 0) -> None:
    """What comes now may take as long as a phase."""
    beat(step, doing, long=True)


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def _say(enabled: bool) -> Say:
    def say(text: str) -> None:
        if enabled:
            print(text, flush=True)

    return say
