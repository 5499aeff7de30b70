"""A model from wherever it is: a run, an exported folder, a published folder or name, a GGUF file."""

import dataclasses
import os
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from jaxllm.checkpoint import Store
from jaxllm.data import ImageDataConfig, Tokenizer
from jaxllm.data.fetch import fetch
from jaxllm.data.image_input import ImageInput
from jaxllm.hardware import require_devices, set_up
from jaxllm.hardware.bucket import in_bucket, local_path
from jaxllm.interchange import GenerationDefaults, Published, load_params, open_published, stored_dtypes
from jaxllm.models import Model, VisionConfig, abstract_params, make_model
from jaxllm.recipe.assemble import Job, assemble
from jaxllm.recipe.device_config import inference_config
from jaxllm.recipe.find import find_recipe, is_run_folder
from jaxllm.recipe.given import check_source
from jaxllm.recipe.loaded import Loaded
from jaxllm.recipe.model_folder import is_model_folder, load_model_folder
from jaxllm.recipe.recipe import Recipe
from jaxllm.recipe.run_folder import RunFolder, place_of
from jaxllm.sharding import MeshConfig, MeshError, make_mesh, shardings_for
from jaxllm.training import abstract_state, evaluation_params, make_optimizer
from jaxllm.training.objectives import ImageClassification, PrefixLM


def load(
    name_or_path: str | Path, *, step: int | None = None, mesh: MeshConfig | None = None, dtype: str | None = None
) -> Loaded:
    """A model ready to be called, asked to write, or to embed texts.

        m = jaxllm.load("runs/shakespeare_char")                      # a run
        m = jaxllm.load("HuggingFaceTB/SmolLM2-135M-Instruct")        # a published model, by its name on the hub
        m = jaxllm.load("downloads/smollm2.gguf")                     # a folder or file with one

    Args:
      name_or_path: a run folder, a folder written by `jaxllm convert`, a Hugging Face folder or name, or a GGUF file. A folder
        may be in a bucket, "gs://bucket/runs/try": of a run only the parameters are read, of others all is copied to the cache.
      step: the checkpoint of a run to take. By default the one with the best validation loss, else the newest.
      mesh: devices to spread the parameters over. By default the first one alone.
      dtype: "float32" or "bfloat16", to keep and compute in. By default as in a run's recipe, else float32.

    Raises:
      FileNotFoundError: nothing there, or files missing.
      ValueError: what is there is damaged or not supported; the message says which file and what to do.
    """
    check_source(name_or_path)
    set_up()
    require_devices()
    devices = make_mesh(mesh or MeshConfig(data=1))
    if is_run_folder(name_or_path):
        return _load_run(name_or_path, devices, step, dtype)
    if step is not None:
        raise ValueError(f"step is for the folder of a run: {name_or_path} is none")
    if in_bucket(name_or_path):
        name_or_path = fetch(str(name_or_path))
    elif str(name_or_path).startswith("file://"):
        name_or_path = local_path(name_or_path)
    if is_model_folder(name_or_path):
        loaded = load_model_folder(Path(name_or_path), devices, dtype)
    else:
        loaded = load_published(name_or_path, devices, dtype)
    if loaded.image_problem is not None:
        only = "takes no pictures, only arrays that are normalized already"
        warnings.warn(f"{loaded.source} {only}, since {loaded.image_problem}", stacklevel=2)
    return loaded


def _load_run(place: str | Path, mesh: Mesh, step: int | None, dtype: str | None) -> Loaded:
    run = open_run(place)
    model = make_model(inference_config(run.recipe.model, dtype, mesh))
    params, step = restore_params(run, model, mesh, step)
    eos = () if run.tokenizer is None or run.tokenizer.eos_id is None else (run.tokenizer.eos_id,)
    return Loaded(
        model=model,
        params=params,
        tokenizer=run.tokenizer,
        source=run.folder.place,
        generation=GenerationDefaults(eos_ids=eos),
        prefix=isinstance(run.recipe.objective, PrefixLM),
        image_input=_trained_input(run.recipe),
        recipe=run.recipe,
        step=step,
    )


def _trained_input(recipe: Recipe) -> ImageInput | None:
    """How pictures become what a run has been trained with."""
    if isinstance(recipe.objective, ImageClassification) and isinstance(recipe.data, ImageDataConfig):
        return recipe.objective.image_input(recipe.data)
    return None


def load_published(name_or_path: str | Path, mesh: Mesh, dtype: str | None) -> Loaded:
    """The model of a Hugging Face folder or name; its weights are read straight into their places."""
    published = open_published(name_or_path)
    config = inference_config(published.config, dtype, mesh)
    model = make_model(config)
    abstract, axes = abstract_params(model)
    shardings = shardings_for(abstract, axes, mesh)
    params = load_params(published.tensors, published.family, config, abstract, shardings)
    image_input, image_problem = _published_image_input(published)
    return Loaded(
        model=model,
        params=params,
        tokenizer=None if isinstance(config, VisionConfig) else _published_tokenizer(published),
        source=published.source,
        generation=published.generation,
        sentence=published.read_sentence(),
        image_input=image_input,
        image_problem=image_problem,
        architecture=published.family.architectures[0],
        stored_dtypes=stored_dtypes(published.tensors, published.family, config, abstract),
    )


def _published_tokenizer(published: Published) -> Tokenizer | None:
    """None where there are no tokenizer files: the model can be called with ids all the same."""
    try:
        return published.load_tokenizer()
    except FileNotFoundError as error:
        warnings.warn(f"the model has no tokenizer, so it is called with ids only: {error}", stacklevel=4)
        return None


def _published_image_input(published: Published) -> tuple[ImageInput | None, str | None]:
    """How pictures become its input, or why that cannot be followed, without the folder, which another machine has not: it can
    be called with normalized pixels all the same."""
    try:
        return published.read_image_input(), None
    except ValueError as error:
        return None, str(error).replace(f"{published.source}{os.sep}", "")


class OpenRun(NamedTuple):
    """What the folder of a run says of its model."""

    folder: RunFolder
    recipe: Recipe
    tokenizer: Tokenizer | None


def open_run(path: str | Path) -> OpenRun:
    """What a run folder says of its model; the data set need not be there.

    Raises:
      ValueError: not a run folder, or a tokenizer that does not match it.
    """
    if not is_run_folder(path):
        raise ValueError(f"{path} is not a run folder: it has no recipe.json; train first with `jaxllm train`")
    folder = RunFolder(place_of(path), resumes=True)
    recipe = find_recipe(str(path))
    if isinstance(recipe.model, VisionConfig):
        return OpenRun(folder, recipe, None)
    tokenizer = folder.load_tokenizer()
    if tokenizer is None or tokenizer.vocab_size > recipe.model.vocabulary:
        found = "none" if tokenizer is None else f"one with {tokenizer.vocab_size} entries"
        raise ValueError(
            f"the tokenizer in {folder.tokenizer} must have at most {recipe.model.vocabulary} entries, as the "
            f"checkpoint's vocabulary: got {found}; put the run's own tokenizer back"
        )
    return OpenRun(folder, recipe, tokenizer)


def restore_params(run: OpenRun, model: Model, mesh: Mesh, step: int | None) -> tuple[Any, int]:
    """The parameters to use, on this mesh, and the step they are from: the average where the optimizer keeps one."""
    optimizer, _ = make_optimizer(run.recipe.optimizer, run.recipe.steps)
    abstract = abstract_state(model, optimizer, mesh)
    with closing(Store(run.folder.checkpoints, run.recipe.checkpoint)) as store:
        chosen = step if step is not None else store.best_step()
        if run.recipe.optimizer.ema is None:
            found = store.restore_params(abstract.params, chosen)
            params = found.state
        else:
            found = store.restore(abstract, chosen)
            params = evaluation_params(found.state.params, found.state.opt_state)
    if run.tokenizer is not None and found.meta["tokenizer"] != run.tokenizer.fingerprint:
        raise ValueError(
            f"the tokenizer in {run.folder.tokenizer} must be the one that the checkpoint was trained with: it is another; "
            "put the run's own tokenizer back"
        )
    return params, found.step


def open_for_evaluation(path: str | Path, *, step: int | None = None) -> tuple[Job, Any, int]:
    """The job of a run folder over this machine's devices, the parameters to evaluate it with, and their step."""
    set_up()
    run = open_run(path)
    try:
        job = assemble(run.recipe, run.tokenizer)
    except MeshError:  # trained on another machine: over the devices of this one
        job = assemble(dataclasses.replace(run.recipe, mesh=MeshConfig()), run.tokenizer)
    params, step = restore_params(run, job.model, job.mesh, step)
    return job, params, step
