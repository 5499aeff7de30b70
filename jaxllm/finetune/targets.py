"""Which modules a method changes: patterns over the paths of a model's projections and embeddings.

Layers are stacked, so a path names a module of all layers, "layers/attention/query"; with a number it names that of one layer,
"layers/3/attention/query". A pattern is the end of a path, or all of it, with * for any text: "query", "attention/*",
"layers/3/*", "embed", "unembed".
"""

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from jaxllm.models import overlay, path_of
from jaxllm.sharding import Axes, gather, reshard
from jaxllm.sharding.constrain import current_mesh

EVERY = "all-linear"
"""Pattern of all projections of the blocks, but for experts and their routers."""


class Target(NamedTuple):
    """A projection, y = x · W + b; or an embedding, the same of a row with a single 1."""

    path: str
    """Of the module: "layers/attention/query"."""
    kernel: Any
    axes: tuple[str, ...]
    """Logical axes of the kernel."""
    leading: int
    """How many of them count layers."""
    contracted: int
    """How many of the others the input has: 2 for attention's output, else 1."""
    chosen: tuple[bool, ...] = (True,)
    """Which of its layers are meant."""

    @property
    def is_embedding(self) -> bool:
        return self.axes[-1] == "embed" and self.axes[0] in ("vocab", "position", "token_type")

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

    @property
    def widths(self) -> tuple[int, int]:
        """Rows and columns of the matrix of one layer."""
        _, inputs, outputs = self.sizes
        return math.prod(inputs), math.prod(outputs)

    @property
    def layers(self) -> int:
        """How many matrices stand here."""
        return self.kernel.shape[0] if self.leading else 1

    def names(self, layer: int) -> tuple[str, str]:
        """The module's path, and that of one of its layers."""
        parts = self.path.split("/")
        if not self.leading:
            return self.path, self.path
        place = parts.index("layers") + 1
        return self.path, "/".join((*parts[:place], str(layer), *parts[place:]))

    def stacked(self, of_layer: Sequence[Any], dtype: Any = jnp.float32) -> Array:
        """One value a layer as an array; a single number where there are no layers."""
        return jnp.asarray(of_layer if self.leading else of_layer[0], dtype)

    def matrix(self) -> Array:
        """The kernel as [*, inputs, outputs], in float32, whole on every device of a mesh that computes."""
        kernel = self.kernel
        if current_mesh() is not None:
            kernel = reshard(kernel, PartitionSpec())
        return kernel.astype(jnp.float32).reshape(*self.sizes[0], *self.widths)


def targets_of(params: Any, axes: Any) -> Iterator[Target]:
    """What a method can change: projections, experts' excepted, embeddings, and the output matrix."""
    is_axes = lambda node: isinstance(node, Axes)  # noqa: E731
    names = {path_of(keys): leaf.names for keys, leaf in jax.tree_util.tree_leaves_with_path(axes, is_leaf=is_axes)}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = path_of(keys)
        module, _, last = path.rpartition("/")
        parts = module.split("/")
        if last not in ("kernel", "table") or "experts" in names[path] or ("unembed" in parts and parts[-1] != "unembed"):
            continue
        if "layers" in parts and parts[parts.index("layers") + 1].isdigit():
            raise ValueError("a fine-tuning method needs a model with all its heads: prune them after the adapter is merged")
        leading = 1 if names[path][0] == "layers" else 0
        contracted = 2 if names[path][leading] == "heads" else 1
        yield Target(module, leaf, names[path], leading, contracted)


def matches(path: str, pattern: str) -> bool:
    """Whether a pattern such as "query", "attention/*" or "layers/ffw/up" means the module at this path: its last parts, or
    all of them."""
    if pattern == EVERY:
        return "layers" in path.split("/") and not path.endswith("/router")
    return fnmatchcase(path, pattern) or fnmatchcase(path, f"*/{pattern}")


def by_layer(target: Target, patterns: Sequence[tuple[str, Any]], default: Any) -> list[Any]:
    """For each layer of a target the value of the first pattern that means it."""

    def value(layer: int) -> Any:
        names = target.names(layer)
        return next((value for pattern, value in patterns if any(matches(name, pattern) for name in names)), default)

    return [value(layer) for layer in range(target.layers)]


def find_targets(
    params: Any,
    axes: Any,
    patterns: Sequence[str],
    *,
    exclude: Sequence[str] = (),
    layers: Sequence[int] | None = None,
    field: str = "method.targets",
    partly: bool = True,
) -> list[Target]:
    """The modules that patterns mean, each with the layers that are meant.

    Args:
      exclude: patterns of modules that are not meant.
      layers: the layers that are meant. By default all.
      partly: whether some layers of a module may be meant and others not.

    Raises:
      ValueError: a pattern that means none; what it could have meant is listed. Layers that are not there, or parts that the
        method cannot do.
    """
    there = list(targets_of(params, axes))
    check_patterns(patterns, there, field)
    check_patterns(exclude, there, "method.exclude")
    deepest = max((target.layers for target in there if target.leading), default=0)
    for layer in layers or ():
        if not 0 <= layer < deepest:
            raise ValueError(f"method.layers must be in 0..{deepest - 1}: got {layer}")
    found = []
    for target in there:
        meant, not_meant = (_chosen(target, these) for these in (patterns, exclude))
        of_layer = [layers is None or not target.leading or layer in layers for layer in range(target.layers)]
        chosen = tuple(yes and layer not in not_meant and layer in meant for layer, yes in enumerate(of_layer))
        if any(chosen):
            found.append(target._replace(chosen=chosen))
        if any(chosen) and not partly and not all(chosen):
            raise ValueError(f"{field} must mean all layers of a module with this method: {target.path} is meant in some only")
    if not found:
        raise ValueError(f"{field}, method.exclude and method.layers together mean no module: leave some of them out")
    return found


def check_patterns(patterns: Sequence[str], there: Sequence[Target], field: str, what: str = "projection") -> None:
    """Refuses a pattern that means none of these, which are all projections of the model, or all targets of a method."""
    for pattern in patterns:
        if not any(_chosen(target, (pattern,)) for target in there):
            _refuse(pattern, there, field, what)


def _chosen(target: Target, patterns: Sequence[str]) -> set[int]:
    """The layers of a target that patterns mean."""
    met = by_layer(target, [(pattern, True) for pattern in patterns], False)
    return {layer for layer, yes in enumerate(met) if yes}


def _refuse(pattern: str, there: Sequence[Target], field: str, what: str) -> None:
    names = sorted({target.path.rpartition("layers/")[2] for target in there})
    near = difflib.get_close_matches(pattern, [*names, *(name.rpartition("/")[2] for name in names)], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"{field}: {pattern!r} matches no {what}: there are {', '.join(names)}{hint}")


def computed(leaf: Array, axes: Sequence[str], dtype: Any) -> Array:
    """A method's parameter in the layout and type it is computed with; where each row of the batch has its own, these stand
    before the other dimensions."""
    rows = ("batch",) if leaf.ndim > len(axes) else ()
    return gather(leaf.astype(dtype), *rows, *axes)


def letters_of(letters: str, leaf: Array) -> str:
    """Letters of a method's parameter in an equation: with B where each row of the batch has its own."""
    return f"B{letters}" if leaf.ndim > len(letters) else letters


def beside(leaf: Array, dims: int, like: Array) -> Array:
    """A parameter that multiplies the last `dims` dimensions of an activation, [B, T, ...], one for all rows or one a row."""
    if leaf.ndim > dims:
        return jnp.expand_dims(leaf, tuple(range(1, like.ndim - dims)))
    return jnp.expand_dims(leaf, tuple(range(like.ndim - dims))) if dims else leaf


def nested(path: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} for "a/b"."""
    for name in reversed(path.split("/")):
        value = {name: value}
    return value


def joined(trees: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several nested dicts as one."""
    whole: dict[str, Any] = {}
    for tree in trees:
        whole = overlay(whole, tree)
    return whole


def begun(targets: Sequence[Target], leaf: str, make: Any, key: Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """A method's parameters at all its targets, and their logical axes.

    Args:
      make: `make(key, target) -> (values, names)`, by name the arrays and their axes.
    """
    made = []
    for number, target in enumerate(targets):
        values, names = make(jax.random.fold_in(key, number), target)
        axes = {name: Axes(tuple(of)) for name, of in names.items()}
        made.append((nested(f"{target.path}/{leaf}", values), nested(f"{target.path}/{leaf}", axes)))
    return joined([values for values, _ in made]), joined([names for _, names in made])


def prepared_heads(params: Any, leaf: str, change: Callable[[Any, Any, int], Any]) -> Any:
    """The parameters with a method's own worked into each task's head: a loss reads labels from hidden states outside of the
    modules, so nothing is dropped there. `change` as `transform` has it; both are whole on every device."""
    if not isinstance(params, dict):
        return params
    changed = {name: value if name == "layers" else prepared_heads(value, leaf, change) for name, value in params.items()}
    if "head" in changed:
        changed["head"] = transform(changed["head"], leaf, lambda *given: change(whole(given[0]), whole(given[1]), given[2]))
    return changed


def whole(tree: Any) -> Any:
    """Small arrays, all of each on every device."""
    return jax.tree.map(lambda x: reshard(x, PartitionSpec(*[None] * x.ndim)), tree)


def transform(params: Any, leaf: str, change: Callable[[Any, Any, int], Any], leading: int = 0) -> Any:
    """The parameters without a method's own, the others of each module that had them changed: `change(module, own, leading)`,
    where `leading` dimensions of each array count layers."""
    if isinstance(params, tuple):
        return tuple(transform(value, leaf, change) for value in params)
    if not isinstance(params, dict):
        return params
    changed = {
        name: transform(value, leaf, change, 1 if name == "layers" else leading)
        for name, value in params.items()
        if name != leaf
    }
    return change(changed, params[leaf], leading) if leaf in params else changed
