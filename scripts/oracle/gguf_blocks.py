"""Writes tests/interchange/golden/gguf_blocks.npz: what the `gguf` package makes of random blocks of every type that we read.

    python scripts/oracle/gguf_blocks.py        # a Python with gguf and numpy; jaxllm is not needed

For each type two arrays: `<type>/bytes` (rows of two blocks) and `<type>/values`, its float32 bits as uint32. Scales are
random half-precision numbers, negative ones and subnormals among them; in the last row they are infinite or no numbers.
"""
# pyright: reportMissingImports=false

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
HALF_FLOATS = (
    {"Q6_K": [208]} | dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), [0, 2]) | dict.fromkeys(("Q8_0", "Q4_0", "Q5_0"), [0])
)
"""Where in a block a half-precision number begins."""
ROWS = 24


def random_rows(name: str, random: np.random.Generator) -> np.ndarray:
    size, num_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    blocks = 2 if size > 1 else 8
    rows = random.integers(0, 256, (ROWS, blocks, num_bytes), np.uint8)
    for start in HALF_FLOATS.get(name, []):
        scales = random.normal(0, 0.02, (ROWS, blocks, 1)).astype(np.float16)
        scales[0] = np.float16(3e-7)  # subnormal
        scales[-1] = np.array([np.inf, np.nan], np.float16).reshape(2, 1)
        rows[:, :, start : start + 2] = scales.view(np.uint8)
    return rows.reshape(ROWS, blocks * num_bytes)


def main() -> None:
    random = np.random.default_rng(0)
    arrays = {}
    for name in TYPES:
        rows = random_rows(name, random)
        with np.errstate(all="ignore"):
            typed = rows.view({"F32": np.float32, "F16": np.float16}.get(name, np.uint8))
            values = dequantize(typed, GGMLQuantizationType[name])
        arrays[f"{name}/bytes"], arrays[f"{name}/values"] = rows, np.ascontiguousarray(values, np.float32).view(np.uint32)
    path = Path(__file__).parents[2] / "tests" / "interchange" / "golden" / "gguf_blocks.npz"
    np.savez_compressed(path, **arrays)
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
