"""An adapter by itself: what a method has learnt, without the model that it is for."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
from jax.sharding import Mesh, NamedSharding

from jaxllm.finetune import AnyMethod, Full, adapt, unadapted
from jaxllm.finetune.peft import Adapter, Layout, write_adapter
from jaxllm.hardware.bucket import local_path
from jaxllm.models import TransformerConfig, abstract_params, overlay, partition, path_of, paths
from jaxllm.recipe.adapter_folder import write_adapter_folder
from jaxllm.recipe.adapting import find_adapter, place
from jaxllm.recipe.family import family_of
from jaxllm.recipe.head_of import with_head_of
from jaxllm.recipe.load import load
from jaxllm.recipe.loaded import Loaded
from jaxllm.sharding import MeshConfig, make_mesh, shardings_for


def save_adapter(source: Loaded | str | Path, folder: str | Path, *, to: Literal["jaxllm", "peft"] = "jaxllm") -> Path:
    """Writes what a fine-tuned model has learnt, and what it needs to compute with it; not its base.

        save_adapter("runs/sst2-lora", "adapter")
        save_adapter("runs/sst2-lora", "for_peft", to="peft")        # peft.PeftModel.from_pretrained(base, "for_peft")

    Args:
      source: a run, or a model that `load` or `load_adapter` has given.
      folder: must not exist; it appears when everything is in it.
      to: "jaxllm", for every method, to the last bit; or "peft", the layout of Hugging Face PEFT, for those that it has.

    Raises:
      FileExistsError: there is something at `folder`.
      ValueError: all of the model has learnt, or PEFT cannot say what has.
    """
    loaded = source if isinstance(source, Loaded) else load(source)
    method, folder = method_of(loaded), local_path(folder)
    layout = layout_of(loaded)
    base = str(loaded.recipe.pretrained if loaded.recipe is not None and loaded.recipe.pretrained else loaded.source)
    if to == "peft":
        return write_adapter(folder, layout, method, loaded.params, base)
    own = partition(loaded.params, lambda path: path not in layout.leaves or method.learns(path))[0]
    head = loaded.config.head if isinstance(loaded.config, TransformerConfig) else None
    return write_adapter_folder(folder, Adapter(method, own, base), layout.leaves, head)


def load_adapter(loaded: Loaded | str | Path, folder: str | Path) -> Loaded:
    """A model with an adapter on it, as `save_adapter` or PEFT has written it; it has no recipe, which would be its base's.

        m = load_adapter("HuggingFaceTB/SmolLM2-135M", "adapter")
        m.generate("Once upon a time")

    Args:
      loaded: the base, or anything that `load` takes.

    Raises:
      FileNotFoundError: no adapter there.
      ValueError: one that cannot be read here, or is for another base: says the first difference.
    """
    loaded = loaded if isinstance(loaded, Loaded) else load(loaded)
    if unadapted(loaded.model) is not loaded.model or loaded.method is not None:
        raise ValueError(
            f"an adapter is loaded onto a base model: {loaded.source} has one already; load its base, or where the adapter was "
            "made for the two together, what `jaxllm convert` makes of them"
        )
    given, loaded = loaded, with_head_of(loaded, local_path(folder))
    found = find_adapter(local_path(folder), layout_of(loaded))
    blank = sorted(set(paths(loaded.params)) - set(paths(given.params)) - set(paths(found.params)))
    if blank:
        raise ValueError(
            f"the adapter in {folder} must bring {blank[0]}, which {given.source} has not: load it onto {found.base}"
        )
    model = adapt(loaded.model, found.method)
    abstract, axes = abstract_params(model)
    placed = place(found, loaded.params, abstract, shardings_for(abstract, axes, _mesh_of(given.params)), folder)
    params = overlay(loaded.params, placed)
    return dataclasses.replace(loaded, model=model, params=params, method=found.method, recipe=None, step=None)


def method_of(loaded: Loaded) -> AnyMethod:
    """What a loaded model was fine-tuned by.

    Raises:
      ValueError: it was not, or all of it has learnt.
    """
    method = getattr(loaded.model, "method", None) or loaded.method
    method = method or (loaded.recipe.method if loaded.recipe is not None else Full())
    if isinstance(method, Full):
        raise ValueError(f"an adapter needs a method that leaves its base: all of {loaded.source} has learnt; convert it")
    return method


def layout_of(loaded: Loaded) -> Layout:
    """The model without its adapter, with the key map of its family."""
    model: Any = unadapted(loaded.model)
    abstract, axes = abstract_params(model)
    own = {path_of(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(abstract)}
    params = partition(loaded.params, lambda path: path in own)[0]
    return Layout(partial(family_of, loaded.config, loaded.architecture, loaded.source), loaded.config, params, axes)


def _mesh_of(params: Any) -> Mesh:
    sharding = jax.tree.leaves(params)[0].sharding
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    return mesh if isinstance(mesh, Mesh) else make_mesh(MeshConfig(data=1))
