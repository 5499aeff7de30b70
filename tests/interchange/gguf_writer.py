"""Writes small GGUF files for the tests, straight from the specification of the format."""

import struct
from pathlib import Path

import numpy as np

from jaxllm.interchange.gguf_dequantize import BLOCKS, TYPE_NAMES

NUMBERS = {name: number for number, name in TYPE_NAMES.items()}


def write_gguf(path: Path, metadata: dict, tensors: dict, *, version: int = 3, alignment: int = 32) -> Path:
    """Metadata of Python values (or an array for numbers of one type), tensors of float32 or of (type, raw rows)."""
    metadata = metadata | ({"general.alignment": alignment} if alignment != 32 else {})
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, value in metadata.items():
        kind, content = encode(value)
        head += text(key) + struct.pack("<I", kind) + content
    body = b""
    for name, value in tensors.items():
        kind, rows = value if isinstance(value, tuple) else ("F32", np.ascontiguousarray(value, np.float32))
        shape = rows.shape
        if rows.dtype == np.uint8:
            shape = (rows.shape[0], rows.shape[1] // BLOCKS[kind].layout.itemsize * BLOCKS[kind].size)
        body += b"\0" * (-len(body) % alignment)
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), NUMBERS[kind], len(body))
        body += rows.tobytes()
    path.write_bytes(head + b"\0" * (-len(head) % alignment) + body)
    return path


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def encode(value: object) -> tuple[int, bytes]:
    """The number of a value's type, and its bytes."""
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return (4, struct.pack("<I", value)) if value >= 0 else (5, struct.pack("<i", value))
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        return 8, text(value)
    if isinstance(value, np.ndarray):
        kinds = {"u1": 0, "i1": 1, "u2": 2, "i2": 3, "u4": 4, "i4": 5, "f4": 6, "b1": 7, "u8": 10, "i8": 11, "f8": 12}
        return 9, struct.pack("<IQ", kinds[value.dtype.str[1:]], value.size) + value.tobytes()
    assert isinstance(value, list)
    parts = [encode(part) for part in value]
    return 9, struct.pack("<IQ", parts[0][0] if parts else 8, len(parts)) + b"".join(content for _, content in parts)
