"""A folder of published weights: `model.safetensors`, or shards with an index. Opened lazily, written a tensor at a time.

A file is eight bytes with the length of its header, the header (JSON: for each tensor its type, shape and place) and the
bytes of the tensors. Reading maps one tensor at a time, so that pages of those already read do not stay in memory.
"""

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_AGAIN = "copy or download it again"


class Stored(NamedTuple):
    """Where a tensor is."""

    file: Path
    dtype: str
    """As the file calls it, a key of `DTYPES`."""
    shape: tuple[int, ...]
    offset: int
    """Of its first byte in the file."""


@dataclass(frozen=True)
class SafetensorsFolder:
    """The tensors of a folder, by name; `open_tensors` makes one."""

    path: Path
    stored: Mapping[str, Stored]

    @property
    def names(self) -> Collection[str]:
        return self.stored.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self.stored[name].shape

    def dtype(self, name: str) -> np.dtype:
        entry = self.stored[name]
        if entry.dtype not in DTYPES:
            raise ValueError(
                f"{self.where(name)} is of type {entry.dtype}, which cannot be read: types that can are {', '.join(DTYPES)}"
            )
        return DTYPES[entry.dtype]

    def where(self, name: str) -> str:
        """The tensor and its file, for messages."""
        return f"{name} in {self.stored[name].file}"

    def read(self, name: str, wanted: tuple[slice, ...]) -> Shaped[np.ndarray, "..."]:
        """A rectangle of a tensor: a view of the mapped file, which goes away with it."""
        entry = self.stored[name]
        if math.prod(entry.shape) == 0:
            return np.empty(entry.shape, self.dtype(name))[(*wanted, ...)]
        return np.memmap(entry.file, self.dtype(name), "r", entry.offset, entry.shape)[(*wanted, ...)]


def open_tensors(folder: Path) -> SafetensorsFolder:
    """The weights of a folder in the published layout; only headers are read.

    Raises:
      FileNotFoundError: no weights there, or an index that names a missing shard.
      ValueError: weights that are not safetensors, or a file that is truncated or damaged.
    """
    if (folder / SINGLE).is_file():
        return SafetensorsFolder(folder, read_header(folder / SINGLE))
    if (folder / INDEX).is_file():
        return SafetensorsFolder(folder, _read_shards(folder))
    pickles = sorted(path.name for path in [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    if pickles:
        raise ValueError(
            f"{folder} has its weights in {pickles[0]}, a pickle, which can run any program when it is opened, so it is not "
            "read: take a version with model.safetensors, or, where you trust the file, write one with transformers: "
            "AutoModel.from_pretrained(folder).save_pretrained(new_folder)"
        )
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    raise FileNotFoundError(f"expected {SINGLE} or {INDEX} in {folder}: it holds {there}")


def _read_shards(folder: Path) -> dict[str, Stored]:
    index = folder / INDEX
    try:
        weight_map: dict[str, str] = dict(json.loads(index.read_text("utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index} must be JSON with a weight_map of tensor names to files ({error}); {_AGAIN}") from error
    for name, file in weight_map.items():
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{index} says that {name} is in {file}: there is no such file; download it, too")
    headers = {file: read_header(folder / file) for file in sorted(set(weight_map.values()))}
    for name, file in weight_map.items():
        if name not in headers[file]:
            raise ValueError(f"{index} says that {name} is in {file}: it is not; index and shard must be of one version")
    return {name: headers[file][name] for name, file in weight_map.items()}


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one file.

    Raises:
      ValueError: the file is truncated or damaged: says where.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if start == b"version ":
            raise ValueError(f"{path} is a pointer of Git LFS, not the weights: run git lfs pull in its folder")
        if size < 8 or length > size - 8:
            raise ValueError(
                f"{path} is truncated or damaged: it has {size} bytes, its header alone needs {8 + length}; {_AGAIN}"
            )
        raw = file.read(length)
    try:
        header = json.loads(raw)
        entries = {
            name: (str(entry["dtype"]), tuple(map(int, entry["shape"])), *map(int, entry["data_offsets"]))
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: its header is not the JSON of a safetensors file ({error}); {_AGAIN}") from error
    return _check_entries(path, entries, 8 + length, size)


def _check_entries(path: Path, entries: Mapping[str, tuple], data: int, size: int) -> dict[str, Stored]:
    """Tensors must follow each other without gaps and fill the file."""
    end = 0
    for name, (dtype, shape, start, stop) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if start != end or stop < start:
            raise ValueError(f"{path} is damaged: {name} should begin at byte {end} of the data, not {start}; {_AGAIN}")
        if dtype in DTYPES and stop - start != math.prod(shape) * DTYPES[dtype].itemsize:
            raise ValueError(f"{path} is damaged: {name} of shape {shape}, {dtype}, has {stop - start} bytes; {_AGAIN}")
        if data + stop > size:
            raise ValueError(f"{path} is truncated: {name} ends at byte {data + stop}, the file at {size}; {_AGAIN}")
        end = stop
    if data + end != size:
        raise ValueError(f"{path} is damaged: its tensors end at byte {data + end}, the file at {size}; {_AGAIN}")
    return {name: Stored(path, dtype, shape, data + start) for name, (dtype, shape, start, _) in entries.items()}


class Outgoing(NamedTuple):
    """A tensor to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], Shaped[np.ndarray, "..."]]
    """Called once, when its turn comes, so that tensors need not exist together."""

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(folder: Path, tensors: Iterable[Outgoing], max_shard_bytes: int) -> None:
    """One file, or several with an index where they would be larger than `max_shard_bytes`; a tensor is never split."""
    shards: list[list[Outgoing]] = [[]]
    for tensor in tensors:
        if shards[-1] and sum(other.nbytes for other in shards[-1]) + tensor.nbytes > max_shard_bytes:
            shards.append([])
        shards[-1].append(tensor)
    if len(shards) == 1:
        return write_file(folder / SINGLE, shards[0])
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_file(folder / file, shard)
        weight_map |= {tensor.name: file for tensor in shard}
    total = sum(tensor.nbytes for shard in shards for tensor in shard)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def write_file(path: Path, tensors: Sequence[Outgoing]) -> None:
    """Writes one file of safetensors."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    tensors = sorted(tensors, key=lambda tensor: (-tensor.dtype.itemsize, tensor.name))  # so that each is aligned
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        places = [end, end := end + tensor.nbytes]
        header[tensor.name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": places}
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for tensor in tensors:
            array = np.asarray(tensor.make(), tensor.dtype, order="C")
            assert array.shape == tensor.shape
            file.write(array.reshape(-1).view(np.uint8).data)
