"""A model from wherever it is: a run, an exported folder, a published folder or name, a GGUF file."""

import dataclasses
import warnings
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxllm.data import ImageDataConfig, Tokenizer
from jaxllm.data.fetch import fetch
from jaxllm.data.image_input import ImageInput
from jaxllm.finetune import adapt, begin_params, unadapted, wrapped
from jaxllm.finetune.adapted import begin
from jaxllm.hardware import require_devices, set_up
from jaxllm.hardware.bucket import in_bucket, local_path
from jaxllm.interchange import GenerationDefaults, open_published
from jaxllm.models import (
    Model,
    ModelConfig,
    VisionConfig,
    abstract_params,
    make_model,
    overlay,
    partition,
    path_of,
    paths,
)
from jaxllm.recipe.adapting import is_adapter, with_adapter
from jaxllm.recipe.assemble import assemble
from jaxllm.recipe.base_identity import adapter_identity, base_identity, check_base
from jaxllm.recipe.device_config import inference_config
from jaxllm.recipe.find import is_run_folder
from jaxllm.recipe.fitting import fitting
from jaxllm.recipe.given import check_source
from jaxllm.recipe.job import Job
from jaxllm.recipe.loaded import Loaded
from jaxllm.recipe.model_folder import is_model_folder, load_model_folder, read_model_file
from jaxllm.recipe.open_run import OpenRun, open_run
from jaxllm.recipe.published import load_published, published_tokenizer
from jaxllm.recipe.recipe import Recipe
from jaxllm.sharding import MeshConfig, MeshError, make_mesh, use_mesh
from jaxllm.training import TrainState, abstract_state, evaluation_params, init_state, make_optimizer
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
    name_or_path = _at_hand(name_or_path)
    if is_model_folder(name_or_path):
        loaded = load_model_folder(Path(name_or_path), devices, dtype)
    else:
        loaded = load_published(name_or_path, devices, dtype)
    if loaded.image_problem is not None:
        only = "takes no pictures, only arrays that are normalized already"
        warnings.warn(f"{loaded.source} {only}, since {loaded.image_problem}", stacklevel=2)
    return loaded


class Peeked(NamedTuple):
    """What can be known of a model without reading its weights."""

    config: ModelConfig
    tokenizer: Tokenizer | None


def peek(name_or_path: str | Path) -> Peeked:
    """Config and tokenizer of anything that `load` takes; raises what `load` raises."""
    check_source(name_or_path)
    if is_run_folder(name_or_path):
        run = open_run(name_or_path)
        return Peeked(run.recipe.model_config, run.tokenizer)
    name_or_path = _at_hand(name_or_path)
    if is_model_folder(name_or_path):
        described, tokenizer = read_model_file(Path(name_or_path))
        return Peeked(described.config, tokenizer)
    published = open_published(name_or_path)
    return Peeked(published.config, None if isinstance(published.config, VisionConfig) else published_tokenizer(published))


def _at_hand(name_or_path: str | Path) -> str | Path:
    """A folder in a bucket is copied to the cache; an adapter is no model."""
    if in_bucket(name_or_path):
        found: str | Path = fetch(str(name_or_path))
    else:
        found = local_path(name_or_path) if str(name_or_path).startswith("file://") else name_or_path
    if is_adapter(Path(found)):
        raise ValueError(
            f"{name_or_path} is an adapter, not a model: jaxllm.recipe.load_adapter(MODEL, ADAPTER) puts it on the model that "
            "it was made for, and `jaxllm evaluate ADAPTER --base MODEL --task NAME --data SET` measures it"
        )
    return found


def _load_run(place: str | Path, mesh: Mesh, step: int | None, dtype: str | None) -> Loaded:
    run = open_run(place)
    model = adapt(make_model(inference_config(run.recipe.model_config, dtype, mesh)), run.recipe.method)
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


def restore_params(run: OpenRun, model: Model, mesh: Mesh, step: int | None) -> tuple[Any, int]:
    """The parameters to use, on this mesh, and the step they are from: the average where the optimizer keeps one. Those that
    have not learnt are the pretrained model's."""
    recipe = run.recipe
    optimizer, _ = make_optimizer(recipe.optimizer, recipe.steps, wrapped(recipe.method, recipe.steps))
    abstract = abstract_state(model, optimizer, mesh, learns=recipe.method.learns)
    with closing(run.folder.store(run.recipe)) as store:
        chosen = step if step is not None else store.best_step()
        if recipe.optimizer.ema is None:
            found = store.restore_params(abstract.params, chosen)
            params = found.state
        else:
            found = store.restore(abstract._replace(frozen={}), chosen)
            params = evaluation_params(found.state.params, found.state.opt_state)
    if run.tokenizer is not None and found.meta["tokenizer"] != run.tokenizer.fingerprint:
        raise ValueError(
            f"the tokenizer in {run.folder.tokenizer} must be the one that the checkpoint was trained with: it is another; "
            "put the run's own tokenizer back"
        )
    if jax.tree.leaves(abstract.frozen):
        first = first_state(recipe, model, mesh, abstract)
        check_base(recipe, first.identity, found)
        params = overlay(first.state.frozen, params)
    return params, found.step


class First(NamedTuple):
    """What a run begins with."""

    state: TrainState
    new: list[str]
    """Paths of the parameters that are new in spite of a pretrained model, as those of a head are."""
    identity: dict[str, str]
    """What of the pretrained model must be found again: see `base_identity`."""


def load_pretrained(recipe: Recipe, mesh: Mesh) -> Loaded:
    """The model that a recipe begins with, on the devices of this mesh, whichever the recipe names."""
    assert recipe.pretrained is not None
    return load(recipe.pretrained, mesh=MeshConfig(**mesh.shape, explicit=recipe.mesh.explicit))


def first_state(recipe: Recipe, model: Model, mesh: Mesh, abstract: TrainState) -> First:
    """The state that a run begins with."""
    key = jax.random.fold_in(jax.random.key(recipe.seed), 0)
    optimizer, _ = make_optimizer(recipe.optimizer, recipe.steps, wrapped(recipe.method, recipe.steps))
    given, new, identity = None, [], {}
    if recipe.pretrained is not None:
        own = recipe.method.leaf
        loaded = load_pretrained(recipe, mesh)
        given, missing = fitting(loaded, abstract.whole, recipe.model_config)
        identity = base_identity(loaded, abstract)
        if recipe.adapter is not None:
            given = with_adapter(recipe.adapter, recipe.model_config, given, abstract.whole)
            identity = identity | adapter_identity(model, given, abstract, missing)
            missing = [path for path in missing if path not in paths(given)]
        new = [path for path in missing if own not in path.split("/")]
    if recipe.method.begins_apart and mesh.devices.flat[0].platform == "cpu":
        given = _begun_apart(recipe, model, mesh, key, abstract, given)
    make = partial(begin_params, model)
    return First(init_state(model, optimizer, mesh, key, abstract, recipe.method.learns, make, given), new, identity)


def _begun_apart(recipe: Recipe, model: Model, mesh: Mesh, key: jax.Array, abstract: TrainState, given: Any) -> Any:
    """All parameters to begin with: first those of the model itself, then, of these numbers, those of its method."""
    plain = unadapted(model)
    _, axes = abstract_params(plain)
    of_model = lambda tree: partition(tree, lambda path: recipe.method.leaf not in path.split("/"))[0]  # noqa: E731
    layout = jax.tree.map(lambda leaf: leaf.sharding, of_model(abstract.whole))
    with use_mesh(mesh):
        base = jax.jit(partial(begin_params, plain), out_shardings=layout)(key, None if given is None else of_model(given))
        own, _ = begin(recipe.method, recipe.model_config, key, base, axes)
    places = {path_of(keys): leaf.sharding for keys, leaf in jax.tree_util.tree_leaves_with_path(abstract.whole)}

    def placed(keys: Any, leaf: jax.Array) -> jax.Array:
        whole = np.asarray(leaf.addressable_data(0))  # each process has made all of it
        return jax.make_array_from_callback(whole.shape, places[path_of(keys)], lambda index: whole[index])

    return overlay(overlay(base, jax.tree_util.tree_map_with_path(placed, own)), given or {})


def assembled(recipe: Recipe, tokenizer: Tokenizer | None) -> Job:
    """The pieces of a run that has begun, or is to begin, with these parameters: see `assemble`."""
    return dataclasses.replace(assemble(recipe, tokenizer), first=_first_params)


def _first_params(job: Job) -> Any:
    return first_state(job.recipe, job.model, job.mesh, job.abstract).state.whole


def first_params_of(run: Recipe, job: Job) -> Any:
    """The parameters that a run began with, for a job on the same model that has another recipe."""
    recipe = dataclasses.replace(job.recipe, pretrained=run.pretrained, adapter=run.adapter, seed=run.seed)
    return first_state(recipe, job.model, job.mesh, job.abstract).state.whole


def open_for_evaluation(path: str | Path, *, step: int | None = None) -> tuple[Job, Any, int]:
    """The job of a run folder over this machine's devices, the parameters to evaluate it with, and their step."""
    set_up()
    run = open_run(path)
    try:
        job = assembled(run.recipe, run.tokenizer)
    except MeshError:  # trained on another machine: over the devices of this one
        job = assembled(dataclasses.replace(run.recipe, mesh=MeshConfig()), run.tokenizer)
    params, step = restore_params(run, job.model, job.mesh, step)
    return job, params, step
