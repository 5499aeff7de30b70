"""What a file gives each module, said in the fields of a method: targets, and patterns for those that differ."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from jaxllm.finetune.peft.flat import Flat, Place
from jaxllm.finetune.peft.modules import Layout, Module
from jaxllm.finetune.targets import Target


def targets_by_path(layout: Layout) -> dict[str, Target]:
    return {target.path: target for module in layout.modules.values() for target in module.targets}


def patterns_of(places: Collection[Place], targets: Mapping[str, Target]) -> tuple[str, ...]:
    """Patterns that mean these layers of these modules and no others."""
    found = []
    for path in dict.fromkeys(path for path, _ in places):
        layers = [layer for other, layer in places if other == path]
        whole = len(layers) == targets[path].layers
        found += [path] if whole else [targets[path].names(layer)[1] for layer in sorted(layers)]
    return tuple(found)


def values_by_pattern(values: Mapping[Place, Any], targets: Mapping[str, Target]) -> tuple[Any, tuple[tuple[str, Any], ...]]:
    """The value that most have, and patterns with those of the others."""
    default = Counter(values.values()).most_common(1)[0][0]
    found: list[tuple[str, Any]] = []
    for value in dict.fromkeys(values.values()):
        places = [place for place, other in values.items() if other == value]
        if value != default:
            found += [(pattern, value) for pattern in patterns_of(places, targets)]
    return default, tuple(found)


def all_layers(places: Collection[Place], targets: Mapping[str, Target], kind: str) -> tuple[str, ...]:
    """The modules' paths, each with all its layers.

    Raises:
      ValueError: some layers of a module have no adapter.
    """
    patterns = patterns_of(places, targets)
    partly = [pattern for pattern in patterns if pattern not in targets]
    if partly:
        raise ValueError(
            f"an adapter of PEFT's {kind} must be for all layers of a module to be computed here: one is for {partly[0]} and "
            "not for others; merge it with PEFT"
        )
    return patterns


def parts_of(module: Module, flats: Mapping[Place, Flat]) -> list[Flat | None]:
    """What each of a published module's matrices has."""
    return [flats.get((target.path, module.layer)) for target in module.targets]


def same(arrays: Collection[Any]) -> bool:
    first, *others = arrays
    return all(np.array_equal(first, other) for other in others)
