"""An adapter's numbers among the parameters of a model."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxllm.finetune import AnyMethod
from jaxllm.finetune.peft import CONFIG, Adapter, Layout, read_adapter
from jaxllm.hardware.bucket import local_path
from jaxllm.models import ModelConfig, TransformerConfig, abstract_params, make_model, overlay, path_of
from jaxllm.recipe.adapter_folder import is_adapter_folder, read_adapter_folder
from jaxllm.recipe.family import family_of
from jaxllm.recipe.head_of import labels_in


def is_adapter(folder: Path) -> bool:
    """Whether there is an adapter of either layout; one of PEFT's has no model beside it."""
    return is_adapter_folder(folder) or ((folder / CONFIG).is_file() and not (folder / "config.json").is_file())


def find_adapter(folder: Path, layout: Layout) -> Adapter:
    """An adapter of either layout, for a model.

    Raises:
      FileNotFoundError: there is none.
    """
    if is_adapter_folder(folder):
        return read_adapter_folder(folder, layout.leaves)
    if not (folder / CONFIG).is_file():
        there = ", ".join(sorted(file.name for file in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
        raise FileNotFoundError(
            f"expected an adapter in {folder}, adapter.json or {CONFIG}: {there or 'it is empty'}; name the folder of one"
        )
    return read_adapter(folder, layout)


def place(found: Adapter, base: Any, abstract: Any, shardings: Any, source: str | Path) -> Any:
    """An adapter's parameters on the devices, those of the model in the model's types.

    Args:
      base: the model's own parameters.
      abstract: shapes of all of the adapted model's; and `shardings` in the same tree.
    """
    shapes = {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(abstract)}
    places = {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(shardings)}
    types = {path_of(keys): leaf.dtype for keys, leaf in jax.tree_util.tree_leaves_with_path(base)}

    def put(keys: Any, value: Any) -> jax.Array:
        path = path_of(keys)
        if path not in shapes or shapes[path].shape != value.shape:
            want = f"[{', '.join(map(str, shapes[path].shape))}]" if path in shapes else "absent"
            raise ValueError(
                f"{path} of the adapter in {source} must be {want} in this model: got {list(value.shape)}; it was made by "
                f"{type(found.method).__name__} for {found.base}: load it into that, and leave `method` out"
            )
        return jax.device_put(np.asarray(value).astype(types.get(path, np.float32)), places[path])

    return jax.tree_util.tree_map_with_path(put, found.params)


def described_method(folder: str, config: ModelConfig) -> AnyMethod:
    """The method of an adapter, for a model of this config, whose weights are not read and whose labels may not be told yet."""
    config = _with_labels_of(local_path(folder), config)
    abstract, axes = abstract_params(make_model(config))
    blank = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), abstract)
    return find_adapter(local_path(folder), Layout(partial(family_of, config, None, folder), config, blank, axes)).method


def _with_labels_of(folder: Path, config: ModelConfig) -> ModelConfig:
    """As many labels as the adapter has, where the head awaits them."""
    if not isinstance(config, TransformerConfig):
        return config
    head = config.head
    if head.kind not in ("sequence", "tokens") or head.num_labels is not None:
        return config
    return dataclasses.replace(config, head=dataclasses.replace(head, num_labels=labels_in(folder) or 1, label_names=None))


def with_adapter(folder: str, config: ModelConfig, given: Any, wanted: Any) -> Any:
    """Parameters to begin with, those of an adapter added.

    Args:
      given: the base's; a head may be missing.
      wanted: shapes, types and shardings of all of the adapted model's.
    """
    abstract, axes = abstract_params(make_model(config))
    blank = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), abstract)
    base = overlay(blank, given)
    found = find_adapter(local_path(folder), Layout(partial(family_of, config, None, folder), config, base, axes))
    placed = place(found, base, wanted, jax.tree.map(lambda leaf: leaf.sharding, wanted), folder)
    return overlay(given, placed)
