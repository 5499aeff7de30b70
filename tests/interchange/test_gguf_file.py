from pathlib import Path

import numpy as np
import pytest

from jaxllm.interchange.gguf_file import open_gguf
from tests.interchange.gguf_writer import write_gguf

GOLDEN = np.load(Path(__file__).parent / "golden" / "gguf_blocks.npz")
METADATA = {
    "general.architecture": "llama",
    "count": 7,
    "below": -7,
    "epsilon": 0.5,
    "yes": True,
    "words": ["", "über", "月"],
    "nested": [[1, 2], [3]],
    "scores": np.array([0.25, -1], np.float32),
    "large": np.array([2**40], np.uint64),
}


def small(path: Path, **options: int) -> Path:
    tensors = {
        "table": np.arange(12.0).reshape(4, 3),
        "norm": np.arange(5.0),
        "quantized": ("Q6_K", GOLDEN["Q6_K/bytes"]),
        "cube": np.arange(24.0).reshape(2, 3, 4),
    }
    return write_gguf(path / "small.gguf", METADATA, tensors, **options)


@pytest.mark.parametrize("options", [{}, {"version": 2}, {"alignment": 8}, {"alignment": 256}])
def test_reads_what_was_written(tmp_path: Path, options: dict):
    file = open_gguf(small(tmp_path, **options))
    for key, value in METADATA.items():
        read = file.metadata[key]
        same = np.array_equal(read, value) and read.dtype == value.dtype if isinstance(value, np.ndarray) else read is not None
        assert same
    assert {key: file.metadata[key] for key in ("below", "words", "yes", "epsilon")} == {
        **{"below": -7, "words": ["", "über", "月"], "yes": True, "epsilon": 0.5}
    }
    assert [list(numbers) for numbers in file.metadata["nested"]] == [[1, 2], [3]]
    assert list(file.tensors) == ["table", "norm", "quantized", "cube"]
    np.testing.assert_array_equal(file.read("table"), np.arange(12.0).reshape(4, 3))
    np.testing.assert_array_equal(file.read("cube"), np.arange(24.0).reshape(2, 3, 4))
    np.testing.assert_array_equal(file.read("norm", slice(1, 3)), [1, 2])
    np.testing.assert_array_equal(file.read("quantized").view(np.uint32), GOLDEN["Q6_K/values"])


def test_reads_some_rows(tmp_path: Path):
    file = open_gguf(small(tmp_path))
    expected = GOLDEN["Q6_K/values"]
    np.testing.assert_array_equal(file.read("quantized", slice(5, 9)).view(np.uint32), expected[5:9])
    np.testing.assert_array_equal(file.read("quantized", np.array([7, 2, 7])).view(np.uint32), expected[[7, 2, 7]])
    assert file.read("quantized", slice(3, 3)).shape == (0, 512)


def test_cut_short_anywhere(tmp_path: Path):
    data = small(tmp_path).read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in [*range(8, 800, 7), len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"cut.gguf is (cut short|damaged).*copy or download it again"):
            open_gguf(cut)


def test_damaged_anywhere(tmp_path: Path):
    data = bytearray(small(tmp_path).read_bytes())
    damaged = tmp_path / "damaged.gguf"
    random = np.random.default_rng(0)
    for _ in range(200):
        place = int(random.integers(8, 800))
        changed = bytes(data[:place]) + bytes([data[place] ^ int(random.integers(1, 256))]) + bytes(data[place + 1 :])
        damaged.write_bytes(changed)
        try:
            file = open_gguf(damaged)
            for tensor in file.tensors:
                file.read(tensor)
        except ValueError as error:
            assert "damaged.gguf" in str(error) and "\n" not in str(error)


def test_other_files(tmp_path: Path):
    for start, message in [
        (b"PK\x03\x04more", r"begins with the bytes GGUF: .*begins with b'PK\\x03\\x04'"),
        (b"", r"begins with b''"),
        (b"GGUF\x03", r"is cut short: it ends after 5 bytes"),
        (b"GGUF\x01\0\0\0" + b"\0" * 16, r"version 2 or 3: .*has version 1"),
        (b"GGUF\0\0\0\x03" + b"\0" * 16, r"is big endian"),
    ]:
        (tmp_path / "other.gguf").write_bytes(start)
        with pytest.raises(ValueError, match=message):
            open_gguf(tmp_path / "other.gguf")
    with pytest.raises(FileNotFoundError, match=r"nothing\.gguf"):
        open_gguf(tmp_path / "nothing.gguf")


def test_types_that_are_not_supported_are_named(tmp_path: Path):
    path = write_gguf(tmp_path / "iq.gguf", {}, {"a": ("IQ2_XS", np.zeros((2, 4), np.float32)), "b": np.zeros(3)})
    file = open_gguf(path)
    np.testing.assert_array_equal(file.read("b"), np.zeros(3))
    with pytest.raises(ValueError, match=r"one of the types F32, F16, .*Q6_K: .*iq.gguf holds IQ2_XS \(a\); quantize"):
        file.read("a")


def test_blocks_do_not_cross_rows(tmp_path: Path):
    path = write_gguf(tmp_path / "crossing.gguf", {}, {"a": ("Q8_0", np.zeros((2, 48), np.float32))})
    with pytest.raises(ValueError, match=r"rows of Q8_0 tensors are whole blocks of 32 values, 'a' has the shape \(2, 48\)"):
        open_gguf(path)
