"""Published tensors straight into their shardings: each device's part of each array is read from the files by itself."""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding
from jaxtyping import Shaped

from jaxllm.interchange.family import Family
from jaxllm.interchange.keymap import BoundTensor, bind_all, published_shapes

_SHOWN = 8


@runtime_checkable
class TensorSource(Protocol):
    """Published tensors by name: a `SafetensorsFolder`, or anything that offers the same."""

    @property
    def path(self) -> Path: ...
    @property
    def names(self) -> Collection[str]: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def dtype(self, name: str) -> np.dtype: ...
    def where(self, name: str) -> str: ...
    def read(self, name: str, wanted: tuple[slice, ...]) -> Shaped[np.ndarray, "..."]: ...


def load_params(
    source: TensorSource,
    family: Family,
    config: Any,
    abstract_params: Any,
    shardings: Any = None,
    dtype: str | None = None,
) -> Any:
    """Our parameters from published tensors.

        published = open_published("runs/llama")
        abstract, axes = abstract_params(Transformer(published.config))
        shardings = shardings_for(abstract, axes, mesh)
        params = load_params(published.tensors, published.family, published.config, abstract, shardings)

    At any time the host holds the parameters made so far and one published tensor. A device holds its own parts only.

    Args:
      abstract_params: shapes and types of our parameters.
      shardings: the same tree of shardings. By default all on the first device.
      dtype: the type to keep them in. By default that of `abstract_params`.

    Raises:
      ValueError: tensors that are missing, unexpected or of a wrong shape or type; all of them are named.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(abstract_params)
    bound = _bound(family, config, leaves)
    stored = match_names(source, family, published_shapes(bound))
    owners = {path: (tensor, part) for tensor in bound for part, path in enumerate(tensor.tensor.paths)}
    if shardings is None:
        places: Sequence[Sharding] = [SingleDeviceSharding(jax.local_devices()[0])] * len(leaves)
    else:
        places = structure.flatten_up_to(shardings)
    arrays = [
        _load_array(source, stored, *owners[_path(keys)], leaf.shape, np.dtype(dtype or leaf.dtype), place)
        for (keys, leaf), place in zip(leaves, places, strict=True)
    ]
    return jax.tree.unflatten(structure, arrays)


def _bound(family: Family, config: Any, leaves: Sequence[tuple[Any, Any]]) -> list[BoundTensor]:
    return bind_all(family.tensors(config), {_path(keys): tuple(leaf.shape) for keys, leaf in leaves})


def stored_dtypes(source: TensorSource, family: Family, config: Any, abstract_params: Any) -> dict[str, str]:
    """How each published tensor is stored, under the name that an export gives it: what `write_folder` needs to give it back
    to the byte. Those of more than 32 bits are left out, since parameters have no more."""
    bound = _bound(family, config, jax.tree_util.tree_leaves_with_path(abstract_params))
    found, _, _ = _find_names(source, family, published_shapes(bound))
    kinds = {name: source.dtype(stored) for name, stored in found.items()}
    return {name: str(kind) for name, kind in kinds.items() if kind.itemsize <= 4}


def _load_array(
    source: TensorSource,
    stored: Mapping[str, str],
    tensor: BoundTensor,
    part: int,
    shape: tuple[int, ...],
    dtype: np.dtype,
    sharding: Sharding,
) -> jax.Array:
    made: dict[tuple[tuple[int, int, int], ...], np.ndarray] = {}  # copies on several devices are read once

    def rectangle(index: tuple[slice, ...] | None) -> np.ndarray:
        ranges = tuple(piece.indices(size) for piece, size in zip(index or (), shape, strict=True))
        if ranges not in made:
            made[ranges] = _read_rectangle(source, stored, tensor, part, ranges, dtype)
        return made[ranges]

    return jax.make_array_from_callback(shape, sharding, rectangle)


def _read_rectangle(
    source: TensorSource,
    stored: Mapping[str, str],
    tensor: BoundTensor,
    part: int,
    ranges: Sequence[tuple[int, int, int]],
    dtype: np.dtype,
) -> Shaped[np.ndarray, "..."]:
    """A rectangle of one of our arrays, its leading axes filled from one published tensor after the other."""
    out = aligned_empty([stop - start for start, stop, _ in ranges], dtype)
    leading, rest = ranges[: len(tensor.counts)], [slice(start, stop) for start, stop, _ in ranges[len(tensor.counts) :]]
    for index in product(*(range(start, stop) for start, stop, _ in leading)):
        place = tuple(i - start for i, (start, _, _) in zip(index, leading, strict=True))
        if index and index[0] in tensor.tensor.absent:
            out[place] = 0
            continue
        name = stored[tensor.name(index)]
        out[place] = tensor.read_part(part, rest, lambda wanted, name=name: source.read(name, wanted))
    return out


def aligned_empty(shape: Sequence[int], dtype: np.dtype) -> Shaped[np.ndarray, "..."]:
    """An array at an address that JAX on a CPU takes over as it is; others it copies."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def match_names(source: TensorSource, family: Family, expected: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """For each published name that the key map expects, the name under which it is stored.

    Raises:
      ValueError: tensors that are missing, unexpected, unequal though tied, or of a wrong shape or type.
    """
    found, twins, unexpected = _find_names(source, family, expected)
    missing = [name for name in expected if name not in found]
    if missing or unexpected:
        problems = [
            f"{len(names)} {word}: {_listed(names)}"
            for names, word in ((missing, "missing"), (unexpected, "unexpected"))
            if names
        ]
        raise ValueError(
            f"the tensors in {source.path} must be those of {family.architectures[0]} as config.json describes it: "
            f"{'; '.join(problems)}; correct config.json, or take the weights that belong to it"
        )
    for published, name in found.items():
        _check_tensor(source, name, expected[published])
    for name, standing_for in twins.items():
        _check_tensor(source, name, expected[standing_for])
        _check_equal(source, name, found[standing_for])
    return found


def _find_names(
    source: TensorSource, family: Family, expected: Collection[str]
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Expected name -> stored name; stored name of a tied tensor -> what it stands for; and stored names with no place."""
    found: dict[str, str] = {}
    twins: dict[str, str] = {}
    unexpected = []
    for name in source.names:
        spellings = family.spellings(name)
        known = next((spelling for spelling in spellings if spelling in expected), None)
        twin = next(filter(None, (family.stands_for(spelling, expected) for spelling in spellings)), None)
        if known is not None:
            found[known] = name
        elif twin is not None:
            twins[name] = twin
        elif not any(map(family.ignores, spellings)):
            unexpected.append(name)
    for name, standing_for in twins.items():
        found.setdefault(standing_for, name)
    return found, twins, unexpected


def _check_tensor(source: TensorSource, name: str, shape: tuple[int, ...]) -> None:
    if source.shape(name) != shape:
        raise ValueError(
            f"{source.where(name)} must have shape {shape}, as config.json says: got {source.shape(name)}; correct "
            "config.json, or take the weights that belong to it"
        )
    dtype = source.dtype(name)
    if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize < 2:
        raise ValueError(
            f"{source.where(name)} must be of a floating type of 16 bits or more: got {dtype}; weights that were quantized "
            "are not read, take those from before that"
        )


def _check_equal(source: TensorSource, name: str, other: str) -> None:
    """Tied tensors, compared a few megabytes at a time."""
    if name == other:
        return
    rows = max(1, (1 << 22) // max(1, math.prod(source.shape(name)[1:])))
    for start in range(0, source.shape(name)[0], rows):
        wanted = (slice(start, start + rows), *(slice(None) for _ in source.shape(name)[1:]))
        if not np.array_equal(source.read(name, wanted), source.read(other, wanted)):
            raise ValueError(
                f"{source.where(name)} must equal {other}, since config.json ties them: they differ; set "
                "tie_word_embeddings to false in config.json if both are meant"
            )


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _path(keys: Sequence[Any]) -> str:
    return "/".join(str(key.key) for key in keys)
