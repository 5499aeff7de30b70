"""Which modules a method changes: patterns over the paths of a model's projections."""

import difflib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax

from jaxllm.models import overlay, path_of
from jaxllm.sharding import Axes

EVERY = "all-linear"
"""Pattern of all projections of the blocks."""


class Target(NamedTuple):
    """A projection, y = x · W + b."""

    path: str
    """Of the module: "layers/attention/query"."""
    kernel: Any
    axes: tuple[str, ...]
    """Logical axes of the kernel."""
    leading: int
    """How many of them count layers."""
    contracted: int
    """How many of the others the input has: 2 for attention's output, else 1."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Logical axes of the input's dimensions that are multiplied."""
        return self.axes[self.leading : self.leading + self.contracted]

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.axes[self.leading + self.contracted :]

    @property
    def sizes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Sizes of the leading, the contracted and the produced dimensions."""
        shape, first, last = self.kernel.shape, self.leading, self.leading + self.contracted
        return shape[:first], shape[first:last], shape[last:]


def projections(params: Any, axes: Any) -> Iterator[Target]:
    """The projections of a model's blocks; experts are none."""
    is_axes = lambda node: isinstance(node, Axes)  # noqa: E731
    names = {path_of(keys): leaf.names for keys, leaf in jax.tree_util.tree_leaves_with_path(axes, is_leaf=is_axes)}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = path_of(keys)
        module, _, last = path.rpartition("/")
        if last != "kernel" or "layers" not in module.split("/") or "experts" in names[path]:
            continue
        leading = 1 if names[path][0] == "layers" else 0
        contracted = 2 if names[path][leading] == "heads" else 1
        yield Target(module, leaf, names[path], leading, contracted)


def matches(path: str, pattern: str) -> bool:
    """Whether a pattern such as "query", "attention/*" or "layers/ffw/up" means the module at this path: its last parts, or
    all of them."""
    return pattern == EVERY or fnmatchcase(path, pattern) or fnmatchcase(path, f"*/{pattern}")


def find_targets(params: Any, axes: Any, patterns: Sequence[str], field: str = "method.targets") -> list[Target]:
    """The projections that patterns mean.

    Raises:
      ValueError: a pattern that means none; what it could have meant is listed.
    """
    there = list(projections(params, axes))
    for pattern in patterns:
        if not any(matches(target.path, pattern) for target in there):
            names = sorted({target.path.rpartition("layers/")[2] for target in there})
            near = difflib.get_close_matches(pattern, [*names, *(name.rpartition("/")[2] for name in names)], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{field}: {pattern!r} matches no projection of this model: it has {', '.join(names)}{hint}")
    return [target for target in there if any(matches(target.path, pattern) for pattern in patterns)]


def nested(path: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} for "a/b"; a number is a place in a tuple only where layers come apart, which methods do not take."""
    for name in reversed(path.split("/")):
        value = {name: value}
    return value


def joined(trees: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several nested dicts as one."""
    whole: dict[str, Any] = {}
    for tree in trees:
        whole = overlay(whole, tree)
    return whole
