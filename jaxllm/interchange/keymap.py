"""Which published tensors are which of our parameters: a table, used for loading and, with its sides swapped, for export."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from jaxllm.interchange.pattern import Pattern, parse

_PLACEHOLDER = re.compile(r"{(\w+)}")

Index = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """A row of a key map.

    >>> Tensor("h.{layer}.attn.q.weight", "layers/attention/query/kernel", "(N H) D -> D N H")
    >>> Tensor("h.{layer}.attn.c_attn.weight", tuple(f"layers/attention/{x}/kernel" for x in ("query", "key", "value")),
    ...        "D (P N H) -> P D N H")
    """

    name: str
    """The published name. Each placeholder in it, such as {layer} or {expert}, counts along a leading axis of ours."""
    parts: str | tuple[str, ...]
    """Path of our parameter, or of several that are one published tensor."""
    pattern: str | tuple[str, ...]
    """Published -> ours, without the leading axes. Several parts of one shape: our side begins with the axis that counts
    them. Several of unequal shapes: a pattern each, and they follow each other along the first published axis."""
    absent: tuple[int, ...] = ()
    """Indices of the first placeholder for which nothing is published; ours are zeros there."""

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.parts,) if isinstance(self.parts, str) else self.parts


@dataclass(frozen=True)
class BoundTensor:
    """A row of a key map with the sizes that our arrays have; `bind` makes one."""

    tensor: Tensor
    counts: tuple[int, ...]
    """The size of each leading axis."""
    patterns: tuple[Pattern, ...]
    """One for all parts, which counts them, or one a part."""
    sizes: tuple[dict[str, int], ...]
    """The size of each pattern's letters."""

    @property
    def stacked(self) -> bool:
        """Whether one pattern is for several parts."""
        return len(self.patterns) < len(self.tensor.paths)

    def indices(self) -> Iterator[Index]:
        """The places along the leading axes for which there is a published tensor."""
        for index in itertools.product(*map(range, self.counts)):
            if not index or index[0] not in self.tensor.absent:
                yield index

    def name(self, index: Index) -> str:
        places = iter(index)
        return _PLACEHOLDER.sub(lambda _: str(next(places)), self.tensor.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of each published tensor."""
        shapes = [pattern.published_shape(sizes) for pattern, sizes in zip(self.patterns, self.sizes, strict=True)]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:]) if len(shapes) > 1 else shapes[0]

    def read_part(self, part: int, wanted: Sequence[slice], read) -> Shaped[np.ndarray, "..."]:
        """The rectangle `wanted` of a part, at one place along the leading axes.

        Args:
          read: gives a rectangle of the published tensor.
        """
        if self.stacked:
            return self.patterns[0].read((slice(part, part + 1), *wanted), self.sizes[0], read)[0]
        shapes = [pattern.published_shape(sizes) for pattern, sizes in zip(self.patterns, self.sizes, strict=True)]
        start = sum(shape[0] for shape in shapes[:part])

        def read_shifted(places: tuple[slice, ...]) -> np.ndarray:
            first = slice(places[0].start + start, places[0].stop + start)
            return read((first, *places[1:]))

        return self.patterns[part].read(wanted, self.sizes[part], read_shifted if len(shapes) > 1 else read)

    def to_published(self, arrays: Sequence[Shaped[np.ndarray, "..."]]) -> Shaped[np.ndarray, "..."]:
        """The published tensor made of our parts at one place along the leading axes."""
        if self.stacked:
            return self.patterns[0].to_published(np.stack(arrays), self.sizes[0])
        rows = zip(self.patterns, arrays, self.sizes, strict=True)
        pieces = [pattern.to_published(array, sizes) for pattern, array, sizes in rows]
        return np.concatenate(pieces) if len(pieces) > 1 else pieces[0]


def bind(tensor: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> BoundTensor:
    """A row of a key map for parameters of these shapes.

    Raises:
      ValueError: a parameter that is not there, or of a shape that the pattern does not fit.
    """
    try:
        patterns = tuple(map(parse, (tensor.pattern,) if isinstance(tensor.pattern, str) else tensor.pattern))
        missing = [path for path in tensor.paths if path not in shapes]
        if missing:
            raise ValueError(f"the model has no parameter {missing[0]}")
        leading = len(_PLACEHOLDER.findall(tensor.name))
        counts = shapes[tensor.paths[0]][:leading]
        ours = [shapes[path][leading:] for path in tensor.paths]
        if len(patterns) == 1 and len(ours) > 1:
            if len(set(ours)) > 1:
                raise ValueError(f"parts under one pattern must have one shape: got {', '.join(map(str, ours))}")
            ours = [(len(ours), *ours[0])]
        if len(patterns) != len(ours):
            raise ValueError(f"it must have one pattern, or one for each of {len(ours)} parts: got {len(patterns)}")
        sizes = tuple(pattern.sizes(shape) for pattern, shape in zip(patterns, ours, strict=True))
    except ValueError as error:
        raise ValueError(f"the key map's row {tensor.name} does not fit the model: {error}; correct the family") from error
    return BoundTensor(tensor, counts, patterns, sizes)


def bind_all(tensors: Sequence[Tensor], shapes: Mapping[str, tuple[int, ...]]) -> list[BoundTensor]:
    """A whole key map, in which each of our parameters must be once.

    Raises:
      ValueError: a row that does not fit, or a parameter that is in no row or in several.
    """
    bound = [bind(tensor, shapes) for tensor in tensors]
    paths = [path for tensor in tensors for path in tensor.paths]
    twice = [path for path in shapes if paths.count(path) > 1]
    none = [path for path in shapes if path not in paths]
    if twice or none:
        problem = f"{none[0]} is in no row" if none else f"{twice[0]} is in several rows"
        raise ValueError(f"the key map must have each parameter of the model once: {problem}; correct the family")
    return bound


def published_shapes(bound: Sequence[BoundTensor]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every published tensor of a key map."""
    return {tensor.name(index): tensor.shape for tensor in bound for index in tensor.indices()}
