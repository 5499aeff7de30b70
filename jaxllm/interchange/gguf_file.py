"""GGUF files, versions 2 and 3, little endian: metadata, and tensors read by rows from a memory map.

    file = open_gguf("SmolLM2-135M-Instruct.Q4_1.gguf")
    file.metadata["general.architecture"]                # "llama"
    file.read("token_embd.weight", slice(0, 10))      # the first ten rows as float32

A file is a header, metadata (a name, a type, a value, one after the other), a table of tensors and their bytes. The format is
small and settled, so it is read here and not by the `gguf` package, which copies each array of the metadata and dequantizes
whole tensors only.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Integer, UInt8

from jaxllm.interchange.gguf_dequantize import BLOCKS, TYPE_NAMES, dequantize

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_AGAIN = "copy or download it again"


@dataclass(frozen=True, kw_only=True)
class GgufTensor:
    """Where a tensor lies in the file."""

    name: str
    """As in the file, "blk.0.attn_q.weight"."""
    kind: str
    """How it is stored: "F32", "Q4_K"."""
    shape: tuple[int, ...]
    """Rows first, as in NumPy; the file lists the axes the other way round. A block of a quantized type lies within a row."""
    offset: int
    """Of its first byte, from the start of the file."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row: of all values with the same index on the first axis."""
        values = math.prod(self.shape[1:])
        block = BLOCKS[self.kind]
        return values // block.size * block.layout.itemsize

    @property
    def num_bytes(self) -> int:
        return self.shape[0] * self.row_bytes


@dataclass(frozen=True, kw_only=True)
class GgufFile:
    """An open file. Nothing but the metadata is in memory until a tensor is read."""

    path: Path
    """The file."""
    metadata: dict[str, Any]
    """Numbers, strings and booleans; a list of strings is a list, a list of numbers an array."""
    tensors: dict[str, GgufTensor]
    """By name, in the order of the file."""

    def raw(self, name: str) -> UInt8[np.ndarray, "rows row_bytes"]:
        """The bytes of a tensor, a row each: a view of the mapped file, which goes away with it."""
        tensor = self.tensors[name]
        check_supported(self.path, [tensor])
        shape = (tensor.shape[0], tensor.row_bytes)
        return np.memmap(self.path, np.uint8, "r", tensor.offset, shape) if tensor.num_bytes else np.empty(shape, np.uint8)

    def read(self, name: str, rows: slice | Integer[np.ndarray, " rows"] = slice(None)) -> Float32[np.ndarray, "..."]:
        """A tensor, or those of its rows, dequantized; the bits are those of the `gguf` package.

        Raises:
          ValueError: the tensor is of a type that is not supported.
        """
        raw = self.raw(name)[rows]
        tensor = self.tensors[name]
        return dequantize(raw, tensor.kind).reshape(len(raw), *tensor.shape[1:])


def check_supported(path: Path, tensors: list[GgufTensor]) -> None:
    """Refuse tensors of a type that cannot be dequantized."""
    unknown = {tensor.kind: tensor.name for tensor in tensors if tensor.kind not in BLOCKS}
    if unknown:
        kinds = ", ".join(f"{kind} ({name})" for kind, name in sorted(unknown.items()))
        raise ValueError(
            f"the tensors of a GGUF file must be of one of the types {', '.join(BLOCKS)}: {path} holds {kinds}; quantize the "
            "model anew to one of them"
        )


def open_gguf(path: Path | str) -> GgufFile:
    """Read the metadata and the table of tensors, and map the rest.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: not a GGUF file, a version that is not 2 or 3, big endian, cut short, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no GGUF file {path}: give the path of one")
    with path.open("rb") as file:
        start = file.read(8)
        if start[:4] != _MAGIC:
            raise ValueError(
                f"a GGUF file begins with the bytes GGUF: {path} begins with {start[:4]!r}; it is another kind of file"
            )
        if len(start) < 8:
            raise ValueError(f"{path} is cut short: it ends after {len(start)} bytes; {_AGAIN}")
        version = int.from_bytes(start[4:], "little")
        if version not in _VERSIONS:
            what = "is big endian" if version & 0xFFFF == 0 else f"has version {version}"
            raise ValueError(f"a GGUF file must be little endian and of version 2 or 3: {path} {what}; convert the model anew")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            cursor = _Cursor(path, data)
            num_tensors, num_values = cursor.number("Q"), cursor.number("Q")
            metadata = {}
            for _ in range(num_values):
                key = cursor.text()
                metadata[key] = cursor.value(cursor.number("I"))
            return GgufFile(path=path, metadata=metadata, tensors=_read_table(cursor, metadata, num_tensors))


def _read_table(cursor: "_Cursor", metadata: dict[str, Any], count: int) -> dict[str, GgufTensor]:
    """The table of tensors, checked: names differ, blocks lie within rows, and all bytes are in the file."""
    entries = [
        (cursor.text(), cursor.numbers("Q", cursor.number("I")), cursor.number("I"), cursor.number("Q")) for _ in range(count)
    ]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"{cursor.path} is damaged: general.alignment must be a positive number, got {alignment!r}")
    start = -(-cursor.position // alignment) * alignment
    tensors = {}
    for name, axes, kind, offset in entries:
        kind = TYPE_NAMES.get(kind, f"number {kind}")
        tensor = GgufTensor(name=name, kind=kind, shape=tuple(reversed(axes.tolist())), offset=start + offset)
        if name in tensors or not tensor.shape:
            raise ValueError(f"{cursor.path} is damaged: the tensor {name!r} is listed twice or without a shape; {_AGAIN}")
        tensors[name] = tensor
        if kind not in BLOCKS:
            continue
        columns = tensor.shape[-1] if len(tensor.shape) > 1 else 1
        if columns % BLOCKS[kind].size:
            raise ValueError(
                f"{cursor.path} is damaged: rows of {kind} tensors are whole blocks of {BLOCKS[kind].size} values, {name!r} "
                f"has the shape {tensor.shape}; {_AGAIN}"
            )
        if tensor.offset + tensor.num_bytes > len(cursor.data):
            raise ValueError(
                f"{cursor.path} is cut short: the tensor {name!r} ends at byte {tensor.offset + tensor.num_bytes}, the file "
                f"at {len(cursor.data)}; {_AGAIN}"
            )
    return tensors


class _Cursor:
    """Walks over the bytes before the tensors."""

    def __init__(self, path: Path, data: mmap.mmap):
        self.path, self.data, self.position = path, data, 8

    def take(self, count: int) -> int:
        """Step over so many bytes and say where they begin."""
        begin, end = self.position, self.position + count
        if end > len(self.data):
            raise ValueError(
                f"{self.path} is cut short: its metadata goes on to byte {end} at least, the file ends at {len(self.data)}; "
                f"{_AGAIN}"
            )
        self.position = end
        return begin

    def number(self, letter: str) -> Any:
        return struct.unpack_from("<" + letter, self.data, self.take(struct.calcsize("<" + letter)))[0]

    def numbers(self, letter: str, count: int) -> np.ndarray:
        kind = np.dtype("<" + letter)
        return np.frombuffer(self.data, kind, count, self.take(count * kind.itemsize)).copy()

    def text(self) -> str:
        return self.texts(1)[0]

    def texts(self, count: int) -> list[str]:
        """A loop without calls: a vocabulary has hundreds of thousands of texts."""
        found = []
        for _ in range(count):
            begin = self.position + 8
            length = int.from_bytes(self.data[self.position : begin], "little")
            raw = self.data[begin : begin + length]
            if begin > len(self.data) or len(raw) < length:
                self.take(8 + length)  # refuses
            try:
                found.append(raw.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise ValueError(f"{self.path} is damaged: the text at byte {begin} is not UTF-8; {_AGAIN}") from error
            self.position = begin + length
        return found

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise ValueError(f"{self.path} is damaged: there is no type of metadata {kind}; {_AGAIN}")
        kind, count = self.number("I"), self.number("Q")
        if kind in _SCALARS:
            return self.numbers(_SCALARS[kind], count)
        return self.texts(count) if kind == _STRING else [self.value(kind) for _ in range(count)]
