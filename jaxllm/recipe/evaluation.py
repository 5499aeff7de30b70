"""A model and examples that it has not been trained on: what a run, a folder or an adapter is worth on any set."""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxllm.data import DataConfig, ImageDataConfig, TaskDataConfig, open_task_data
from jaxllm.data.source import DataSet, find_set
from jaxllm.finetune import Full
from jaxllm.finetune.peft import CONFIG
from jaxllm.finetune.tasks import (
    InstructionTuning,
    Mixture,
    PreferenceTuning,
    PromptClassification,
    QuestionAnswering,
    Regression,
    SentenceEmbedding,
    TextClassification,
    TextToText,
    TokenClassification,
    is_task,
)
from jaxllm.hardware.bucket import in_bucket
from jaxllm.models import EncoderDecoder, ModelConfig, TransformerConfig, VisionConfig, VisionTransformer, path_of
from jaxllm.recipe.adapter import load_adapter
from jaxllm.recipe.adapter_folder import DESCRIPTION
from jaxllm.recipe.assemble import assemble
from jaxllm.recipe.device_config import portable_config
from jaxllm.recipe.find import is_run_folder
from jaxllm.recipe.job import PAIR, Job
from jaxllm.recipe.load import first_params_of, load, open_for_evaluation
from jaxllm.recipe.loaded import Loaded
from jaxllm.recipe.recipe import Recipe
from jaxllm.sharding import MeshConfig
from jaxllm.training import OptimizerConfig, ScheduleConfig
from jaxllm.training.objectives import CausalLM, ImageClassification, MaskedLM

TASKS: dict[str, type] = {
    "text-classification": TextClassification,
    "prompt-classification": PromptClassification,
    "regression": Regression,
    "token-classification": TokenClassification,
    "question-answering": QuestionAnswering,
    "sentence-embedding": SentenceEmbedding,
    "instruction": InstructionTuning,
    "preference": PreferenceTuning,
    "text-to-text": TextToText,
    "image-classification": ImageClassification,
    "language-model": CausalLM,
}
"""By the name that a command line has for it; of an encoder, language-model is the loss of hidden tokens."""
HEADS = {
    TextClassification: "sequence",
    Regression: "sequence",
    TokenClassification: "tokens",
    QuestionAnswering: "span",
    SentenceEmbedding: "none",
}
"""What a task reads its answers from; others from the head that says tokens."""
PAIRED = (TextClassification, PromptClassification, Regression, SentenceEmbedding)
BATCH_SIZE, LONGEST = 32, 512


class Evaluation(NamedTuple):
    """What is to be measured."""

    job: Job
    params: Any
    step: int | None
    """Of a run."""
    split: str


def open_evaluation(
    source: str,
    *,
    task: str | None = None,
    data: str | None = None,
    split: str | None = None,
    base: str | None = None,
    step: int | None = None,
    change: Callable[[Recipe], Recipe] | None = None,
) -> Evaluation:
    """A model and a split of a set, ready for `measure`.

        evaluation = open_evaluation("runs/sst2", data="mr_labels")
        measure(evaluation.job, evaluation.params, evaluation.split, evaluation.step)["metrics"]

    Args:
      source: a run; a model that `load` takes; or the folder of an adapter, jaxllm's or PEFT's.
      task: one of `TASKS`. By default the run's own.
      data: a set. By default the run's own.
      split: by default the validation split, else the test split.
      base: the model that an adapter is for. By default the one that it names.
      step: the checkpoint of a run. By default the best, else the newest.
      change: fields of the recipe that is evaluated by, changed.

    Raises:
      ValueError: a model without the head that the task needs, or whose labels are not those of the data.
    """
    run = is_run_folder(source)
    if run and task is None and data is None and change is None:
        job, params, step = open_for_evaluation(source, step=step)
        chosen = split or job.recipe.data.validation_split or job.data.test_split
        if chosen is None:
            raise ValueError(f"{source} has no validation split: name one with --split")
        everything = dataclasses.replace(job.recipe.evaluate, batches=None)
        job = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, evaluate=everything))
        return Evaluation(job, params, step, chosen)
    if not run and (task is None or data is None):
        names = ", ".join(TASKS)
        if not in_bucket(source) and len(Path(source).parts) > 1 and not Path(source).exists():
            names += f"; or is it a misspelt run? There is no {source}"
        raise ValueError(f"{source} is no run, so it needs --task (one of {names}) and --data SET: got {task} and {data}")
    loaded = _open_model(source, base, step)
    recipe, split = _recipe(loaded, source, task, data, split)
    recipe = recipe if change is None else change(recipe)
    _check_labels(recipe, loaded, source)
    job = assemble(recipe, loaded.tokenizer)
    if loaded.recipe is not None:
        job = dataclasses.replace(job, first=partial(first_params_of, loaded.recipe))
    return Evaluation(job, _placed(loaded, job.abstract.whole, source), loaded.step, split)


def _open_model(source: str, base: str | None, step: int | None) -> Loaded:
    """A run or a model, or an adapter on its base."""
    named = _base_named_in(Path(source))
    if named is None:
        if base is not None:
            raise ValueError(f"--base is for the folder of an adapter: {source} holds none")
        return load(source, step=step)
    return load_adapter(base or named, source)


def _base_named_in(folder: Path) -> str | None:
    """The base that an adapter says it is for; None where the folder holds none."""
    for file, field in ((DESCRIPTION, "base"), (CONFIG, "base_model_name_or_path")):
        if (folder / file).is_file():
            return str(json.loads((folder / file).read_text("utf-8")).get(field) or "")
    return None


def _recipe(loaded: Loaded, source: str, task: str | None, data: str | None, split: str | None) -> tuple[Recipe, str]:
    """The recipe that is evaluated by, and the split."""
    own = loaded.recipe
    config = own.model_config if own is not None else portable_config(loaded.config)
    objective = _objective(task, own, config, loaded, source)
    mixed = None if own is None or not isinstance(own.objective, Mixture) else own.objective
    if mixed is not None and (data is not None or task is not None) and objective in (mixed, mixed.task):
        assert own is not None and isinstance(own.data, TaskDataConfig)
        objective = mixed.task_for(data or own.data.dataset, own.data)
    config = _with_head(config, objective, source, task)
    if data is None:
        assert own is not None
        kept, chosen = own.data, split or own.data.validation_split or "test"
    else:
        data_set = find_set(data, data_dir=None if own is None else own.data.data_dir)
        chosen = split or next((name for name in ("validation", "test", "train") if data_set.has_split(name)), "validation")
        kept, objective = _data(data, data_set, chosen, loaded, objective)
    recipe = Recipe(
        name="evaluation",
        steps=1,
        batch_size=BATCH_SIZE if own is None else own.batch_size,
        seed=0 if own is None else own.seed,
        model=config,
        method=getattr(loaded.model, "method", Full()),
        data=kept,
        objective=objective,
        optimizer=OptimizerConfig(schedule=ScheduleConfig(warmup_steps=0)),
        mesh=MeshConfig(),
    )
    if own is None:
        return recipe, chosen
    # no checkpoint is chosen here, and the metrics may be others
    evaluate = dataclasses.replace(own.evaluate, metric="loss", batches=None)
    begun = own.pretrained if task is None and data is None else None  # what it began with may have been forgotten
    return dataclasses.replace(recipe, pretrained=begun, method=own.method, evaluate=evaluate, loss=own.loss), chosen


def _objective(task: str | None, own: Recipe | None, config: ModelConfig, loaded: Loaded, source: str) -> Any:
    """The task that is named, as a run has it where that is its own."""
    if task is None:
        assert own is not None
        return own.objective
    kind = TASKS[task]
    if own is not None:
        there = getattr(own.objective, "task", own.objective)
        if isinstance(there, kind) or (kind is CausalLM and not is_task(there) and not isinstance(there, ImageClassification)):
            return there
    if kind is CausalLM:
        if not isinstance(config, TransformerConfig):
            raise ValueError(f"language-model needs an encoder or a decoder alone: {source} is none; take --task text-to-text")
        return CausalLM() if config.causal else MaskedLM()
    if kind is ImageClassification and loaded.image_input is not None:
        return ImageClassification(mean=loaded.image_input.mean, std=loaded.image_input.std)  # type: ignore[arg-type]
    if kind is PromptClassification:  # what stands here until the prompt is given
        return PromptClassification(prompt="{text}" if getattr(config, "causal", False) else "{text} {mask}")
    return kind()


def _with_head(config: ModelConfig, objective: Any, source: str, task: str | None) -> ModelConfig:
    """The model's config; of sentence embedding without its head."""
    objective = getattr(objective, "task", objective)
    name = task or type(objective).__name__
    if isinstance(config, VisionConfig) != isinstance(objective, ImageClassification):
        there = "images" if isinstance(config, VisionConfig) else "text"
        raise ValueError(f"{name} needs another model: {source} is one of {there}")
    if not isinstance(config, TransformerConfig):
        return config
    wanted = HEADS.get(type(objective), "vocabulary")
    if wanted == "none":
        return objective.headed(config)
    if config.head.kind != wanted:
        raise ValueError(
            f"{name} needs a model with a head of kind {wanted!r}: that of {source} is {config.head.kind!r}; fine-tune it "
            "first with `jaxllm train`, or name a run or a folder of one that has been"
        )
    return config


def _data(
    name: str, data_set: DataSet, split: str, loaded: Loaded, objective: Any
) -> tuple[DataConfig | TaskDataConfig | ImageDataConfig, Any]:
    """How a set is read: as the run reads its own where that is of the same kind, else by its features; and the objective."""
    own, model = loaded.recipe, loaded.model
    train = "train" if data_set.has_split("train") else split
    splits: dict[str, Any] = {"train_split": train, "validation_split": split, "test_split": None}
    kind = (
        ImageDataConfig if isinstance(objective, ImageClassification) else TaskDataConfig if is_task(objective) else DataConfig
    )
    if own is not None and isinstance(own.data, kind):
        changes = {"examples": None} if isinstance(own.data, TaskDataConfig) else {}
        return dataclasses.replace(own.data, dataset=name, **splits, **changes), objective
    if isinstance(model, VisionTransformer):
        return ImageDataConfig(dataset=name, image_size=model.config.image_size, **splits), objective
    splits["seq_len"] = min(model.source_len if isinstance(model, EncoderDecoder) else model.context_len, LONGEST)
    if kind is DataConfig:
        return DataConfig(dataset=name, **splits), objective
    features: dict[str, Any] = {}
    if isinstance(objective, TokenClassification):
        features = {"text_feature": "tokens", "label_feature": "tags"}
    elif isinstance(objective, PAIRED) and PAIR in data_set.features:
        features["pair_feature"] = PAIR
        if isinstance(objective, PromptClassification):
            objective = dataclasses.replace(objective, prompt=f"{objective.prompt} {{text_pair}}")
    if isinstance(objective, TextClassification) and "label" not in data_set.features and "labels" in data_set.features:
        features["label_feature"], objective = "labels", dataclasses.replace(objective, several=True)
    return TaskDataConfig(dataset=name, **splits, **features), objective


def _check_labels(recipe: Recipe, loaded: Loaded, source: str) -> None:
    """Refuse data whose labels are not those of the model's head: the numbers would mean other things."""
    config = recipe.model_config
    objective: Any = recipe.objective
    if isinstance(recipe.data, ImageDataConfig):
        names = find_set(recipe.data.dataset, data_dir=recipe.data.data_dir).label_names(recipe.data.label_feature)
        count, own, own_count = len(names), config.label_names, config.num_labels  # type: ignore[union-attr]
    elif isinstance(recipe.data, TaskDataConfig) and isinstance(config, TransformerConfig):
        labels = objective.labels(open_task_data(recipe.data, seed=recipe.seed, tokenizer=loaded.tokenizer))
        if labels is None or config.head.num_labels is None:
            return
        (count, names), own, own_count = labels, config.head.label_names, config.head.num_labels
    else:
        return
    same = own is None or names is None or [name.casefold() for name in own] == [name.casefold() for name in names]
    if count == own_count and same:
        return
    there, here = (_listed(each, number) for each, number in ((own, own_count), (names, count)))
    raise ValueError(
        f"the labels of {recipe.data.dataset} must be those of {source}, in the same order: the model has {there}, the data "
        f"has {here}; build the set with the model's (`jaxllm data build --labels`), or take another model"
    )


def _listed(names: tuple[str, ...] | None, count: int | None) -> str:
    if names is None:
        return f"{count} without names"
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _placed(loaded: Loaded, wanted: Any, source: str) -> Any:
    """The parameters in the places and types of others with the same paths."""
    there = {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(loaded.params)}

    def put(keys: Any, leaf: Any) -> jax.Array:
        path = path_of(keys)
        if path not in there:
            raise ValueError(f"{source} has no parameter {path}, which this task needs; fine-tune it first with `jaxllm train`")
        return jax.device_put(there[path].astype(leaf.dtype), leaf.sharding)

    return jax.tree_util.tree_map_with_path(put, wanted)
