"""Blocks of quantized numbers to float32, for the types of llama.cpp that published files mostly use.

A row is a string of blocks; a block is a record: some scales and 32 or 256 small integers q. Its values are

    Q4_0, Q5_0, Q8_0   scale (q - middle)
    Q4_1, Q5_1         scale q + minimum
    Q4_K, Q5_K         (scale scales[g]) q - (minimum minima[g])      with 8 groups g of 32 values
    Q6_K               (scale scales[g]) (q - 32)                     with 16 groups g of 16 values

in float32 and in this order, so that the bits are those of the `gguf` package.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped, UInt8

TYPE_NAMES = dict(enumerate("""
    F32 F16 Q4_0 Q4_1 Q4_2 Q4_3 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S
    IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16 Q4_0_4_4 Q4_0_4_8 Q4_0_8_8 TQ1_0 TQ2_0 IQ4_NL_4_4 IQ4_NL_4_8 IQ4_NL_8_8
    MXFP4 NVFP4 Q1_0
""".split()))  # fmt: skip
"""The numbers that stand for the types in a file."""

_BLOCKS_AT_ONCE = 2**19
"""Bytes of blocks dequantized together: what is made on the way stays in the processor's cache."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """How a type is stored."""

    size: int
    """Values in a block."""
    layout: np.dtype
    """The record."""
    read: Callable[[Any, Any], None]
    """Fills an array of floats, blocks x size, from an array of records."""


def dequantize(rows: UInt8[np.ndarray, "rows row_bytes"], kind: str) -> Float32[np.ndarray, "rows columns"]:
    """Values of rows of bytes.

    Args:
      kind: a key of `BLOCKS`.
    """
    block = BLOCKS[kind]
    blocks = np.ascontiguousarray(rows).reshape(-1).view(block.layout)
    values = np.empty((len(blocks), block.size), np.float32)
    step = max(_BLOCKS_AT_ONCE // block.layout.itemsize, 1)
    with np.errstate(invalid="ignore", over="ignore"):  # a scale may be infinite in a damaged or a diverged model
        for start in range(0, len(blocks), step):
            block.read(blocks[start : start + step], values[start : start + step])
    columns = rows.shape[1] // block.layout.itemsize * block.size
    return values.reshape(len(rows), columns)


def _float32(blocks: np.ndarray, out: np.ndarray) -> None:
    out[:, 0] = blocks["value"]


def _bfloat16(blocks: np.ndarray, out: np.ndarray) -> None:
    out[:, 0] = (blocks["value"].astype(np.uint32) << 16).view(np.float32)


def _q4_0(blocks: np.ndarray, out: np.ndarray) -> None:
    _scaled(out, blocks["scale"], _nibbles(blocks["low"], 16), middle=8)


def _q4_1(blocks: np.ndarray, out: np.ndarray) -> None:
    _scaled(out, blocks["scale"], _nibbles(blocks["low"], 16))
    out += _column(blocks["minimum"])


def _q5_0(blocks: np.ndarray, out: np.ndarray) -> None:
    _scaled(out, blocks["scale"], _five_bits(blocks), middle=16)


def _q5_1(blocks: np.ndarray, out: np.ndarray) -> None:
    _scaled(out, blocks["scale"], _five_bits(blocks))
    out += _column(blocks["minimum"])


def _q8_0(blocks: np.ndarray, out: np.ndarray) -> None:
    np.multiply(_column(blocks["scale"]), blocks["value"], out=out)


def _q4_k(blocks: np.ndarray, out: np.ndarray) -> None:
    _scaled_groups(blocks, _nibbles(blocks["low"], 32), out)


def _q5_k(blocks: np.ndarray, out: np.ndarray) -> None:
    values = _nibbles(blocks["low"], 32).reshape(-1, 8, 32)
    for bit in range(8):  # bit g of byte i belongs to value i of group g
        values[:, bit] |= (blocks["high"] >> np.uint8(bit) & np.uint8(1)) << np.uint8(4)
    _scaled_groups(blocks, values, out)


def _q6_k(blocks: np.ndarray, out: np.ndarray) -> None:
    values = _nibbles(blocks["low"], 64).reshape(-1, 2, 4, 32)
    high = blocks["high"].reshape(-1, 2, 32)
    for pair in range(4):  # each byte holds the upper two bits of four values that lie 32 apart
        values[:, :, pair] |= (high >> np.uint8(2 * pair) & np.uint8(3)) << np.uint8(4)
    scales = _column(blocks["scale"]) * blocks["scales"]
    centred = values.reshape(-1, 16, 16).view(np.int8) - np.int8(32)
    np.multiply(scales[:, :, None], centred, out=out.reshape(-1, 16, 16))


def _scaled(out: np.ndarray, scale: np.ndarray, values: np.ndarray, middle: int = 0) -> None:
    np.multiply(_column(scale), values.view(np.int8) - np.int8(middle) if middle else values, out=out)


def _scaled_groups(blocks: np.ndarray, values: np.ndarray, out: np.ndarray) -> None:
    """Groups with six-bit scales and minima: four of each lie in a byte of their own, the others are put together of two."""
    first, second, third = (blocks["scales"][:, i : i + 4] for i in (0, 4, 8))
    scales = np.concatenate([first & 63, third & 15 | first >> 2 & 48], axis=1)
    minima = np.concatenate([second & 63, third >> 4 | second >> 2 & 48], axis=1)
    groups = out.reshape(-1, 8, 32)
    np.multiply((_column(blocks["scale"]) * scales)[:, :, None], values.reshape(-1, 8, 32), out=groups)
    groups -= (_column(blocks["minimum"]) * minima)[:, :, None]


def _nibbles(packed: UInt8[np.ndarray, "blocks bytes"], run: int) -> UInt8[np.ndarray, "blocks values"]:
    """Four-bit numbers: of each `run` of bytes first all lower halves, then all upper halves."""
    runs = packed.reshape(len(packed), -1, 1, run)
    return np.concatenate([runs & np.uint8(15), runs >> np.uint8(4)], axis=2).reshape(len(packed), -1)


def _five_bits(blocks: np.ndarray) -> UInt8[np.ndarray, "blocks values"]:
    return _nibbles(blocks["low"], 16) | np.unpackbits(blocks["high"], axis=1, bitorder="little") << np.uint8(4)


def _column(scales: Shaped[np.ndarray, " blocks"]) -> Float32[np.ndarray, "blocks 1"]:
    return scales.astype(np.float32)[:, None]


_SCALE, _MINIMUM = ("scale", "<f2"), ("minimum", "<f2")


def _bytes(name: str, count: int, kind: str = "u1") -> tuple[str, str, tuple[int]]:
    return (name, kind, (count,))


BLOCKS = {
    "F32": Block(size=1, layout=np.dtype([("value", "<f4")]), read=_float32),
    "F16": Block(size=1, layout=np.dtype([("value", "<f2")]), read=_float32),
    "BF16": Block(size=1, layout=np.dtype([("value", "<u2")]), read=_bfloat16),
    "Q8_0": Block(size=32, layout=np.dtype([_SCALE, _bytes("value", 32, "i1")]), read=_q8_0),
    "Q4_0": Block(size=32, layout=np.dtype([_SCALE, _bytes("low", 16)]), read=_q4_0),
    "Q4_1": Block(size=32, layout=np.dtype([_SCALE, _MINIMUM, _bytes("low", 16)]), read=_q4_1),
    "Q5_0": Block(size=32, layout=np.dtype([_SCALE, _bytes("high", 4), _bytes("low", 16)]), read=_q5_0),
    "Q5_1": Block(size=32, layout=np.dtype([_SCALE, _MINIMUM, _bytes("high", 4), _bytes("low", 16)]), read=_q5_1),
    "Q4_K": Block(size=256, layout=np.dtype([_SCALE, _MINIMUM, _bytes("scales", 12), _bytes("low", 128)]), read=_q4_k),
    "Q5_K": Block(
        size=256,
        layout=np.dtype([_SCALE, _MINIMUM, _bytes("scales", 12), _bytes("high", 32), _bytes("low", 128)]),
        read=_q5_k,
    ),
    "Q6_K": Block(
        size=256, layout=np.dtype([_bytes("low", 128), _bytes("high", 64), _bytes("scales", 16, "i1"), _SCALE]), read=_q6_k
    ),
}  # fmt: skip
"""The types that can be read."""
