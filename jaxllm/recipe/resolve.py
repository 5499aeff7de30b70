"""What a recipe leaves to its data and to its own length."""

import dataclasses
from typing import Any, NamedTuple

from jaxllm.checkpoint import Best
from jaxllm.data import Data, ImageData, TaskData, Tokenizer
from jaxllm.finetune.tasks import is_task
from jaxllm.models import EncoderDecoderConfig, ModelConfig, TransformerConfig, VisionConfig
from jaxllm.recipe.device_config import replace_stacks, stacks
from jaxllm.recipe.recipe import Recipe
from jaxllm.training.objectives.marks import first_start_id


class FromData(NamedTuple):
    """What a model is told by its data, where its config does not say."""

    size: int
    """Entries of the vocabulary, or labels."""
    start_id: int | None = None
    """Token that a decoder begins with."""
    label_names: tuple[str, ...] | None = None
    num_labels: int | None = None
    """Labels of the head of a model of text."""

    @classmethod
    def of(cls, model: ModelConfig) -> "FromData":
        """The same from a model that has been told."""
        if isinstance(model, VisionConfig):
            assert model.num_labels is not None
            return cls(model.num_labels, label_names=model.label_names)
        if isinstance(model, EncoderDecoderConfig):
            return cls(model.vocabulary, model.start_id)
        return cls(model.vocabulary, label_names=model.head.label_names, num_labels=model.head.num_labels)


def from_data(recipe: Recipe, data: Data | ImageData | TaskData) -> FromData:
    """What the opened data says."""
    if isinstance(data, ImageData):
        return FromData(len(data.label_names), label_names=data.label_names)
    size, start_id = recipe.objective.vocab_size(data.tokenizer, recipe.data), first_start_id(data.tokenizer)
    labels = recipe.objective.labels(data) if isinstance(data, TaskData) and is_task(recipe.objective) else None
    return FromData(size, start_id) if labels is None else FromData(size, start_id, labels.names, labels.count)


def resolved(recipe: Recipe, known: FromData, decay_steps: int) -> Recipe:
    """The recipe with what it leaves to the data and to its own length filled in.

    The ends of the learning rate's decay and of the method's schedule are fixed when a run starts: one that goes on for
    longer keeps them.

    Raises:
      ValueError: the decay is to end with the run, which is shorter than the warm-up.
    """
    schedule = recipe.optimizer.schedule
    if schedule.decay_steps is None:
        if schedule.warmup_steps > decay_steps:
            raise ValueError(
                "steps must be at least optimizer.schedule.warmup_steps, since the learning rate's decay ends with the run: "
                f"got {decay_steps} and {schedule.warmup_steps}; train for longer, or shorten the warm-up with "
                f"--optimizer.schedule.warmup-steps {decay_steps // 10}"
            )
        schedule = dataclasses.replace(schedule, decay_steps=decay_steps)
    best_of(recipe)  # a metric that is not there is refused
    return dataclasses.replace(
        with_schedule(recipe, recipe.steps),
        model=_told(recipe.model_config, known),
        optimizer=dataclasses.replace(recipe.optimizer, schedule=schedule),
    )


def with_schedule(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with the steps of its method's schedule, where that has one and leaves them out."""
    method: Any = recipe.method
    if getattr(method, "total_steps", steps) is not None:
        return recipe
    return dataclasses.replace(recipe, method=dataclasses.replace(method, total_steps=steps))


def with_schedule_of(recipe: Recipe, earlier: Recipe) -> Recipe:
    """The same from an earlier run, which has it."""
    return with_schedule(recipe, getattr(earlier.method, "total_steps", recipe.steps))


def best_of(recipe: Recipe) -> Best:
    """By what a run's checkpoints are better than others: the metric that its evaluations go by.

    Raises:
      ValueError: a metric that the objective does not report.
    """
    metric, objective = recipe.evaluate.metric, recipe.objective
    known: dict[str, Any] = {"loss": "lowest"} | ({"accuracy": "highest"} if objective.reports.accuracy else {})
    by_data = getattr(objective, "metrics_of", None)
    known |= getattr(objective, "metrics", {}) if by_data is None else by_data(recipe.data)
    if metric not in known:
        raise ValueError(f"evaluate.metric must be one of {', '.join(known)}: got {metric!r}")
    return Best(metric, known[metric])


def _told(model: ModelConfig, known: FromData) -> ModelConfig:
    if isinstance(model, EncoderDecoderConfig):
        sized = replace_stacks(model, lambda stack: dataclasses.replace(stack, vocab_size=stack.vocab_size or known.size))
        return dataclasses.replace(sized, start_id=known.start_id if model.start_id is None else model.start_id)
    if isinstance(model, VisionConfig):
        names = model.label_names or known.label_names
        return dataclasses.replace(model, num_labels=model.num_labels or known.size, label_names=names)
    told = dataclasses.replace(model, vocab_size=model.vocab_size or known.size)
    if model.head.kind not in ("sequence", "tokens") or known.num_labels is None:
        return told
    names = model.head.label_names or known.label_names
    head = dataclasses.replace(model.head, num_labels=model.head.num_labels or known.num_labels, label_names=names)
    return dataclasses.replace(told, head=head)


def with_text(recipe: Recipe, tokenizer: Tokenizer) -> Recipe:
    """The recipe with its method's text as tokens, where that has one."""
    read = getattr(recipe.method, "with_tokenizer", None)
    return recipe if read is None else dataclasses.replace(recipe, method=read(tokenizer))


def with_text_of(recipe: Recipe, earlier: Recipe) -> Recipe:
    """The same from an earlier run, whose tokenizer has read it."""
    ids = getattr(earlier.method, "text_ids", None)
    if ids is None or getattr(recipe.method, "text_ids", ids) is not None:
        return recipe
    return dataclasses.replace(recipe, method=dataclasses.replace(recipe.method, text_ids=ids))  # type: ignore[call-arg]


def check_size(model: ModelConfig, known: FromData) -> None:
    """Refuse a vocabulary smaller than the tokenizer's, or other labels than the data's."""
    needed = known.size
    if isinstance(model, VisionConfig):
        if model.num_labels not in (None, needed):
            raise ValueError(
                f"model.num_labels must be the number of the data's classes: got {model.num_labels}, the data has {needed}; "
                "leave model.num_labels out to take it from the data"
            )
        return
    if isinstance(model, TransformerConfig) and None not in (known.num_labels, model.head.num_labels):
        if model.head.num_labels != known.num_labels:
            raise ValueError(
                f"model.head.num_labels must be the number of the data's labels: got {model.head.num_labels}, the data has "
                f"{known.num_labels}; leave it out to take it from the data"
            )
    for field, stack in stacks(model).items():
        name, given = f"model.{field}".rstrip("."), stack.vocab_size
        if given is not None and given < needed:
            raise ValueError(
                f"{name}.vocab_size must be at least the tokenizer's: got {given}, the tokenizer has {needed} entries; "
                f"leave {name}.vocab_size out to take it from the tokenizer"
            )
