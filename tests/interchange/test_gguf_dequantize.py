"""Blocks against the `gguf` package (scripts/oracle/gguf_blocks.py)."""

from pathlib import Path

import numpy as np
import pytest

from jaxllm.interchange import gguf_dequantize
from jaxllm.interchange.gguf_dequantize import BLOCKS, dequantize

GOLDEN = np.load(Path(__file__).parent / "golden" / "gguf_blocks.npz")


def test_every_type_is_in_the_golden_file():
    assert {name.split("/")[0] for name in GOLDEN} == set(BLOCKS)


@pytest.mark.parametrize("kind", BLOCKS)
def test_equals_the_gguf_package_to_the_bit(kind: str):
    expected = GOLDEN[f"{kind}/values"]
    values = dequantize(GOLDEN[f"{kind}/bytes"], kind)
    missing = np.isnan(expected.view(np.float32))  # the sign of a NaN is the processor's choice
    np.testing.assert_array_equal(np.isnan(values), missing)
    np.testing.assert_array_equal(values.view(np.uint32)[~missing], expected[~missing])
    assert np.ptp(values[1]) > 0


@pytest.mark.parametrize("kind", BLOCKS)
def test_pieces_are_the_same_as_the_whole(kind: str, monkeypatch: pytest.MonkeyPatch):
    rows = np.tile(GOLDEN[f"{kind}/bytes"][:-1], (3, 1))
    whole = dequantize(rows, kind)
    monkeypatch.setattr(gguf_dequantize, "_BLOCKS_AT_ONCE", 5 * BLOCKS[kind].layout.itemsize)
    np.testing.assert_array_equal(dequantize(rows, kind), whole)
    np.testing.assert_array_equal(dequantize(rows[3:5], kind), whole[3:5])
