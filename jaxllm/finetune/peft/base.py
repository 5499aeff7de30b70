"""Weights of the base model in PEFT's files: modules_to_save, which are stored whole, and biases that learn."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

from jaxllm.finetune.peft.config import HEADS, endings, task_type
from jaxllm.finetune.peft.incoming import Incoming
from jaxllm.finetune.peft.modules import Layout
from jaxllm.finetune.targets import joined, nested

Tensors = dict[str, Shaped[np.ndarray, "..."]]


def read_base(incoming: Incoming, bias: str) -> tuple[Any, tuple[str, ...]]:
    """The model's own parameters that an adapter brings, and the paths of those that learn whole.

    Args:
      bias: the config's field; biases that learn by it are not among those paths.

    Raises:
      ValueError: a weight of another shape, or an embedding that the model reads its output with as well.
    """
    layout = incoming.layout
    changed: dict[str, np.ndarray] = {}
    learnt: set[str] = set()
    for name, array in incoming.base.items():
        tensor, index = layout.tensors[name]
        if array.shape != tensor.shape:
            raise ValueError(
                f"{name} must have shape {list(tensor.shape)} in this model: got {list(array.shape)}; the adapter was made for "
                f"{incoming.made_for}, load it into that"
            )
        if name in incoming.saved and _is_tied(layout, tensor.tensor.paths):
            raise ValueError(
                f"the adapter has an embedding {name} of its own, and this model's output matrix is the same one: save the "
                "base with tie_word_embeddings=false, and load the adapter into that"
            )
        for part, path in enumerate(tensor.tensor.paths):
            leaf = changed.setdefault(path, np.array(layout.leaves[path]))
            wanted = [slice(0, size) for size in leaf.shape[len(index) :]]
            leaf[index] = tensor.read_part(part, wanted, lambda places, array=array: array[places])
        by_bias = bias != "none" and name.endswith(".bias") and f"{name.removesuffix('.bias')}.weight" not in incoming.saved
        if name in incoming.saved and not by_bias:
            learnt.update(tensor.tensor.paths)
    return joined([nested(path, leaf) for path, leaf in changed.items()]), tuple(sorted(learnt))


def _is_tied(layout: Layout, paths: Collection[str]) -> bool:
    stack = getattr(layout.config, "decoder", layout.config)
    return getattr(stack, "tie_embeddings", False) and any(path.endswith("embed/table") for path in paths)


@dataclass(frozen=True)
class SavedModules:
    """Published modules that go out whole."""

    names: tuple[str, ...]
    tensors: Tensors

    def fields(self, layout: Layout) -> list[str] | None:
        """What modules_to_save says."""
        return endings(self.names, paths_of(layout), dotted=False) or None


def paths_of(layout: Layout) -> set[str]:
    """Every module of the published model, those that hold others included."""
    found = set()
    for name in layout.tensors:
        parts = name.split(".")
        found.update(".".join(parts[:count]) for count in range(1, len(parts)))
    return found


def saved_modules(layout: Layout, learnt: Collection[str], adapted: Collection[str]) -> SavedModules:
    """The modules that hold our learnt parameters, and the heads that PEFT saves in any case.

    Args:
      learnt: paths of the model's own parameters that have learnt whole.
      adapted: published modules that have an adapter.

    Raises:
      ValueError: what PEFT cannot save.
    """
    heads = HEADS.get(task_type(layout.config) or "", ())
    names: set[str] = set()
    for name, (tensor, _) in layout.tensors.items():
        module, _, kind = name.rpartition(".")
        is_learnt = any(path in learnt for path in tensor.tensor.paths)
        if is_learnt and kind not in ("weight", "bias"):
            raise ValueError(f"PEFT saves modules with weight and bias: {name} learns and is of none; keep jaxllm's own layout")
        if is_learnt or module.endswith(heads or ("\0",)):
            names.add(module)
    both = sorted(names & set(adapted))
    if both:
        raise ValueError(
            f"a module of a PEFT file is either adapted or saved whole: {both[0]} is both; leave it out of method.targets or "
            "method.also"
        )
    if _is_tied(layout, learnt):
        raise ValueError(
            "a PEFT file cannot hold an embedding that learns and is the output matrix as well: keep jaxllm's own layout, or "
            "leave it out of method.also"
        )
    tensors = {
        name: layout.published(tensor, index)
        for name, (tensor, index) in layout.tensors.items()
        if name.rpartition(".")[0] in names
    }
    return SavedModules(tuple(sorted(names)), tensors)


def bias_tensors(layout: Layout, bias: str, adapted: Collection[str], saved: Mapping[str, Any]) -> Tensors:
    """Biases as PEFT names them, by the config's field: all, or those of adapted modules."""
    found: Tensors = {}
    for name, (tensor, index) in layout.tensors.items():
        module, _, kind = name.rpartition(".")
        if kind != "bias" or bias == "none" or (bias != "all" and module not in adapted):
            continue
        array = layout.published(tensor, index)
        if name in saved:
            found |= {f"{module}.{copy}.bias": array for copy in ("modules_to_save", "original_module")}
        else:
            found[f"{module}.base_layer.bias" if module in adapted else name] = array
    return found
