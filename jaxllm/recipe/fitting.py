"""The parameters of one model as those of another that has the same, and perhaps more."""

from typing import Any

import jax

from jaxllm.finetune import unadapted
from jaxllm.finetune.operations import merge
from jaxllm.models import ModelConfig, TransformerConfig, VisionConfig, partition, path_of
from jaxllm.recipe.loaded import Loaded


def fitting(loaded: Loaded, wanted: Any, config: ModelConfig | None = None) -> tuple[Any, list[str]]:
    """The parameters that a model has of those that are wanted, laid out as wanted, and the paths of the others. A head counts
    only where it has the same size, and as far as both say what their labels are called, the same labels.

    Args:
      wanted: the other model's parameters, as shapes, types and shardings.
      config: the other model's. By default its labels are taken to be the same.

    Raises:
      ValueError: one of another shape.
    """
    params = merged(loaded)
    leaves = {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(wanted)}
    there = {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(params)}
    other = [path for path in there if path in leaves and there[path].shape != leaves[path].shape]
    for path in other:
        if not {"head", "classifier"} & set(path.split("/")):
            raise ValueError(
                f"`model` must have the sizes of the pretrained model: {path} is {there[path].shape} in {loaded.source} and "
                f"{leaves[path].shape} here; leave `model` out to take it over"
            )
    if config is not None and _differ(label_names(loaded.config), label_names(config)):
        other += [path for path in there if "classifier" in path.split("/")]
    taken = {path for path in there if path in leaves} - set(other)

    def placed(keys: Any, x: Any) -> Any:
        leaf = leaves[path_of(keys)]
        return jax.device_put(x.astype(leaf.dtype), leaf.sharding)

    chosen = jax.tree_util.tree_map_with_path(placed, partition(params, lambda path: path in taken)[0])
    return chosen, [path for path in leaves if path not in taken]


def label_names(config: ModelConfig) -> tuple[str, ...] | None:
    """What a model's labels are called; None where it has none, or they have numbers only."""
    if isinstance(config, VisionConfig):
        return config.label_names
    return config.head.label_names if isinstance(config, TransformerConfig) else None


def _differ(names: tuple[str, ...] | None, others: tuple[str, ...] | None) -> bool:
    if names is None or others is None:
        return False
    return [name.casefold() for name in names] != [name.casefold() for name in others]


def merged(loaded: Loaded) -> Any:
    """The parameters of a loaded model with what an adapter has learnt worked in."""
    if unadapted(loaded.model) is loaded.model:
        return loaded.params
    try:
        found = merge(loaded.model, loaded.params)
    except ValueError as error:
        raise ValueError(
            f"what {loaded.source} has learnt cannot be worked into its base model: go on with that run, or name its base model"
        ) from error
    if found.model.config != loaded.model.config:
        raise ValueError(
            f"{loaded.source} has an adapted embedding whose table is the output matrix, too: merged they are two; convert it "
            "first, or name its base model"
        )
    return found.params
