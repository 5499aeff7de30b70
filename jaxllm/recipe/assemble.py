"""From a recipe to a run on this machine: the mesh, the data, and what the model is told by it."""

import dataclasses

import jax
from jax.sharding import Mesh

from jaxllm.data import ImageData, ImageDataConfig, TaskDataConfig, Tokenizer, open_data, open_images, open_task_data
from jaxllm.distributed import num_processes
from jaxllm.finetune import packs
from jaxllm.hardware import require_devices
from jaxllm.recipe.job import Job
from jaxllm.recipe.recipe import Recipe
from jaxllm.recipe.resolve import check_size, from_data, resolved, with_text
from jaxllm.sharding import MeshError, make_mesh


def assemble(recipe: Recipe, tokenizer: Tokenizer | None = None) -> Job:
    """The pieces of a run.

    Args:
      tokenizer: the one stored with a run that goes on.

    Raises:
      ValueError: a mesh that does not fit the machine or the model, or a vocabulary too small for the tokenizer.
      FileNotFoundError: no such data set.
    """
    require_devices()
    mesh = make_mesh(recipe.mesh, recipe.batch_size // recipe.accumulate)
    _check_processes(mesh)
    if isinstance(recipe.data, ImageDataConfig):
        data = open_images(recipe.data, seed=recipe.seed)
    elif isinstance(recipe.data, TaskDataConfig):
        packing = recipe.data.packing and packs(recipe.method, recipe.model_config)
        config = dataclasses.replace(recipe.data, packing=packing)
        data = open_task_data(config, seed=recipe.seed, tokenizer=tokenizer)
    else:
        _check_apart(recipe)
        data = open_data(recipe.data, seed=recipe.seed, tokenizer=tokenizer)
    known = from_data(recipe, data)
    check_size(recipe.model_config, known)
    if not isinstance(data, ImageData):
        recipe = with_text(recipe, data.tokenizer)
    return Job(resolved(recipe, known, recipe.steps), mesh, data)


def _check_apart(recipe: Recipe) -> None:
    """Refuses several texts in a row where a method needs one; where they see each other they count as one."""
    if packs(recipe.method, recipe.model_config) or getattr(recipe.data, "cross_document_attention", False):
        return
    raise ValueError(
        f"method {type(recipe.method).__name__} needs one text in each row of this model: set data.cross_document_attention, "
        "so that a row is read as one, or take a task with one text an example"
    )


def _check_processes(mesh: Mesh) -> None:
    """Every process must have a part in the mesh, or it could not take part in the run."""
    there = {device.process_index for device in mesh.devices.flat}
    if len(there) < num_processes():
        raise MeshError(
            f"the mesh must have devices of all {num_processes()} processes: its {mesh.devices.size} of {jax.device_count()} "
            f"devices are those of {len(there)}; choose mesh sizes and a batch_size that use all devices, or fewer processes"
        )
