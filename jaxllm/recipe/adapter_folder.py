"""Our own folder of an adapter: adapter.json, with the method and the shapes of the base it is for, and adapter.safetensors,
whose tensors are named by the paths of our parameters. Every method can be kept in it, to the last bit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxllm.data.whole import new_folder
from jaxllm.finetune import AnyMethod
from jaxllm.finetune.peft import Adapter
from jaxllm.interchange import SafetensorsFolder
from jaxllm.interchange.safetensors_folder import Outgoing, read_header, write_file
from jaxllm.models import HeadConfig, overlay, path_of
from jaxllm.recipe.serialize import from_tree, to_tree

DESCRIPTION, TENSORS = "adapter.json", "adapter.safetensors"
_ONE = "one layer for all: "
"""Before the name of a tensor whose layers are alike, as VeRA's random matrices are."""


@dataclass(frozen=True, kw_only=True)
class AdapterFile:
    """What adapter.json holds."""

    method: AnyMethod
    """The method."""
    base: str
    """The model that the adapter is for: a folder or a name."""
    shapes: dict
    """Those of its parameters, by path."""
    head: HeadConfig | None = None
    """What is read from its last hidden state, which an adapter of a task brings along."""


def is_adapter_folder(folder: Path) -> bool:
    return (folder / DESCRIPTION).is_file()


def head_in(folder: Path) -> HeadConfig | None:
    """The head that an adapter of ours was trained with; None where it does not say."""
    return _described(folder).head if is_adapter_folder(folder) else None


def _described(folder: Path) -> AdapterFile:
    path = folder / DESCRIPTION
    try:
        return from_tree(AdapterFile, json.loads(path.read_text("utf-8")), "", str(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} must hold an adapter's method as JSON: {error}") from None


def write_adapter_folder(folder: Path, adapter: Adapter, base: Mapping[str, Any], head: HeadConfig | None) -> Path:
    """Writes an adapter.

    Args:
      base: the parameters of the model that it is for, by path.
      head: that model's.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: name a folder that is not there yet, or remove it first")
    shapes = {path: list(leaf.shape) for path, leaf in base.items()}
    described = AdapterFile(method=adapter.method, base=adapter.base, shapes=shapes, head=head)
    leaves = {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(adapter.params)}
    with new_folder(folder) as unfinished:
        text = json.dumps(to_tree(described, AdapterFile), indent=1, ensure_ascii=False)
        (unfinished / DESCRIPTION).write_text(text + "\n", "utf-8")
        write_file(unfinished / TENSORS, [_outgoing(path, leaf) for path, leaf in leaves.items()])
    return folder


def _outgoing(path: str, leaf: Any) -> Outgoing:
    array = np.asarray(jax.device_get(leaf))
    if array.ndim > 2 and len(array) > 1 and np.array_equal(array, np.broadcast_to(array[:1], array.shape)):
        return Outgoing(f"{_ONE}{len(array)} {path}", array[0].shape, array.dtype, lambda: array[0])
    return Outgoing(path, array.shape, array.dtype, lambda: array)


def read_adapter_folder(folder: Path, base: Mapping[str, Any]) -> Adapter:
    """An adapter, for a model with these parameters.

    Raises:
      ValueError: damaged, or for another model: says the first parameter of another shape.
    """
    described = _described(folder)
    for name in sorted({*described.shapes, *base}):
        there, here = described.shapes.get(name), list(base[name].shape) if name in base else None
        if there != here:
            labels = ", for data with as many labels" if {"head", "classifier"} & set(name.split("/")) else ""
            raise ValueError(
                f"the adapter in {folder} is for another model: {name} is {there or 'absent'} in {described.base}, which it "
                f"was made for, and {here or 'absent'} here; load it into that{labels}"
            )
    if not (folder / TENSORS).is_file():
        raise FileNotFoundError(f"expected {TENSORS} in {folder}: it is not there; copy it, too")
    stored = SafetensorsFolder(folder, read_header(folder / TENSORS))
    params: Any = {}
    for name in stored.names:
        array = np.array(stored.read(name, tuple(slice(None) for _ in stored.shape(name))))
        if name.startswith(_ONE):
            count, _, name = name.removeprefix(_ONE).partition(" ")
            array = np.broadcast_to(array, (int(count), *array.shape))
        for part in reversed(name.split("/")):
            array = {part: array}
        params = overlay(params, array)
    return Adapter(described.method, params, described.base)
