"""The model that a run began with, once more: to compare with what became of it."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax

from jaxllm.finetune import unadapted
from jaxllm.models import HeadConfig, Model, TransformerConfig, abstract_params, make_model, partition, path_of
from jaxllm.recipe.fitting import fitting
from jaxllm.recipe.job import Job
from jaxllm.recipe.load import load, peek
from jaxllm.sharding import shardings_for

ROOM = 1.2
"""Free memory that another copy of the parameters must find, in units of its size."""


class Base(NamedTuple):
    model: Model
    """Computes as the run's does, with the head that the pretrained model has, without the run's method."""
    params: Any


class NoBase(ValueError):
    """The message says why, in words that go on with a sentence."""


def pretrained_head(job: Job) -> HeadConfig | None:
    """The head of the pretrained model, where it is one stack of blocks."""
    assert job.recipe.pretrained is not None
    config = peek(job.recipe.pretrained).config
    return config.head if isinstance(config, TransformerConfig) else None


def base_of(job: Job, frozen: Any) -> Base:
    """The pretrained model of a run.

    Args:
      frozen: parameters of the run that have not learnt. Where these are all of the model, nothing is read again.

    Raises:
      NoBase: it is not there any more, or there is no room for it.
    """
    assert job.recipe.pretrained is not None
    config, head = unadapted(job.model).config, pretrained_head(job)
    if head is not None and isinstance(config, TransformerConfig):
        config = dataclasses.replace(config, head=head)
    model = make_model(config)
    abstract, axes = abstract_params(model)
    shapes = {path_of(keys): leaf.shape for keys, leaf in jax.tree_util.tree_leaves_with_path(abstract)}
    there = {path_of(keys): leaf.shape for keys, leaf in jax.tree_util.tree_leaves_with_path(frozen)}
    if shapes.items() <= there.items():
        return Base(model, partition(frozen, lambda path: path in shapes)[0])
    placed = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings_for(abstract, axes, job.mesh),
    )
    _check_room(placed, job)
    try:
        params, missing = fitting(load(job.recipe.pretrained, mesh=job.recipe.mesh), placed)
    except (OSError, ValueError) as error:
        raise NoBase(f"the pretrained model could not be read again ({error})") from error
    if missing:
        raise NoBase(f"the pretrained model has no {missing[0]}")
    return Base(model, params)


def _check_room(placed: Any, job: Job) -> None:
    """Refuse a second copy of the parameters where a device has no room for its share."""
    share = sum(x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(placed))
    for device in job.mesh.local_devices:
        stats = device.memory_stats() or {}
        free = stats.get("bytes_limit", float("inf")) - stats.get("bytes_in_use", 0)
        if ROOM * share > free:
            raise NoBase("there is no room for the pretrained model beside the trained one")
