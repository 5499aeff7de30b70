"""Trees of parameters in two parts, such as those that learn and those that do not, and back."""

from collections.abc import Callable
from typing import Any

import jax


def path_of(keys: Any) -> str:
    """A leaf's path as text: "layers/attention/query/kernel"."""
    return "/".join(str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry)))) for entry in keys)


def paths(tree: Any) -> tuple[str, ...]:
    """Paths of all leaves, in the tree's order."""
    return tuple(path_of(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(tree))


def partition(tree: Any, chosen: Callable[[str], bool]) -> tuple[Any, Any]:
    """The leaves whose path is chosen, and the others: two trees of nested dicts (and tuples, of layers that come apart)
    without empty dicts, which `overlay` puts together again."""
    return _kept(tree, chosen, ""), _kept(tree, lambda path: not chosen(path), "")


def _kept(tree: Any, chosen: Callable[[str], bool], at: str) -> Any:
    if isinstance(tree, dict):
        inner = {name: _kept(value, chosen, f"{at}{name}/") for name, value in tree.items()}
        return {name: value for name, value in inner.items() if value is not None and not _is_empty(value)}
    if isinstance(tree, tuple) and not hasattr(tree, "_fields"):
        return tuple(_kept(value, chosen, f"{at}{index}/") for index, value in enumerate(tree))
    return tree if chosen(at.removesuffix("/")) else None


def _is_empty(node: Any) -> bool:
    return isinstance(node, dict) and not node


def overlay(base: Any, own: Any) -> Any:
    """Both trees as one; where both have a leaf, that of `own` counts."""
    if isinstance(base, dict) and isinstance(own, dict):
        joined = {name: overlay(value, own[name]) if name in own else value for name, value in base.items()}
        return joined | {name: value for name, value in own.items() if name not in base}
    if isinstance(base, tuple) and isinstance(own, tuple) and not hasattr(base, "_fields"):
        return tuple(overlay(a, b) for a, b in zip(base, own, strict=True))
    return own
