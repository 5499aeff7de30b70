"""The model that a run began with, once more: to compare with what became of it."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxllm.distributed import gather
from jaxllm.finetune import unadapted
from jaxllm.models import HeadConfig, Model, TransformerConfig, abstract_params, make_model, partition, path_of
from jaxllm.recipe.fitting import fitting
from jaxllm.recipe.job import Job
from jaxllm.recipe.load import load_pretrained, peek
from jaxllm.sharding import placed_shapes

ROOM = 1.2
"""Free memory that another copy of the parameters must find, in units of its size."""


class Base(NamedTuple):
    model: Model
    """Computes as the run's does, with the head that the pretrained model has, without the run's method."""
    params: Any


class NoBase(ValueError):
    """The message says why, in words that go on with a sentence."""


def pretrained_head(job: Job) -> HeadConfig | None:
    """The head of the pretrained model, where it is one stack of blocks. By all processes.

    Raises:
      NoBase: it is not there any more.
    """
    name = job.recipe.pretrained
    assert name is not None
    config = _agreed(lambda: peek(name).config)
    return config.head if isinstance(config, TransformerConfig) else None


def base_of(job: Job, params: Any) -> Base:
    """The pretrained model of a run. By all processes.

    Args:
      params: all of the run's. Where those that have not learnt are all of the model, nothing is read again.

    Raises:
      NoBase: it is not there any more, or there is no room for it.
    """
    config, head = unadapted(job.model).config, pretrained_head(job)
    if head is not None and isinstance(config, TransformerConfig):
        config = dataclasses.replace(config, head=head)
    model = make_model(config)
    abstract, axes = abstract_params(model)
    shapes = {path_of(keys): leaf.shape for keys, leaf in jax.tree_util.tree_leaves_with_path(abstract)}
    there = {path_of(keys): leaf.shape for keys, leaf in jax.tree_util.tree_leaves_with_path(job.abstract.frozen)}
    if shapes.items() <= there.items():
        return Base(model, partition(params, lambda path: path in shapes)[0])
    placed = placed_shapes(abstract, axes, job.mesh)
    _agreed(lambda: _check_room(placed, job))
    params, missing = _agreed(lambda: fitting(load_pretrained(job.recipe, job.mesh), placed))
    if missing:
        raise NoBase(f"the pretrained model has no {missing[0]}")
    return Base(model, params)


def _agreed(find: Callable[[], Any]) -> Any:
    """What each process finds of the pretrained model, once all of them have found it; else NoBase on all of them."""
    found, reason = None, ""
    try:
        found = find()
    except NoBase as error:
        reason = str(error)
    except (OSError, ValueError) as error:
        reason = f"the pretrained model could not be read again ({error})"
    reasons = [each for each in gather(reason) if each]
    if reasons:
        raise NoBase(reasons[0])
    return found


def _check_room(placed: Any, job: Job) -> None:
    """Refuse a second copy of the parameters where a device has no room for its share."""
    share = sum(x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(placed))
    for device in job.mesh.local_devices:
        stats = device.memory_stats() or {}
        free = stats.get("bytes_limit", float("inf")) - stats.get("bytes_in_use", 0)
        if ROOM * share > free:
            raise NoBase("there is no room for the pretrained model beside the trained one")
