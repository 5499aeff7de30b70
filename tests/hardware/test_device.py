from collections import Counter

import numpy as np
import pytest

from jaxllm.hardware import device
from jaxllm.hardware.device import DEVICE_KINDS, device_kind, measured_cpu_flops, peak_flops


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache folder, and nothing measured in this process."""
    monkeypatch.setenv("JAXLLM_CACHE", str(tmp_path))
    measured_cpu_flops.cache_clear()
    yield tmp_path
    measured_cpu_flops.cache_clear()


def test_known_devices_by_the_names_jax_gives():
    assert peak_flops("TPU v5 lite", "bfloat16") == 197e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12
    assert peak_flops("Tesla T4", "float32") == 8.1e12
    assert peak_flops("Tesla T4", "bfloat16") is None
    row = device_kind("TPU v4")
    assert row is not None and row.hbm_bytes == 34.4e9 and row.source


def test_unknown_is_none_and_a_wrong_type_is_refused():
    assert device_kind("Toaster 3000") is None
    assert peak_flops("Toaster 3000", "bfloat16") is None
    with pytest.raises(ValueError, match="dtype must be float32 or bfloat16 .* got 'int8'"):
        peak_flops("TPU v4", "int8")


def test_the_table_is_sane():
    assert max(Counter(kind for row in DEVICE_KINDS for kind in row.kinds).values()) == 1
    for row in DEVICE_KINDS:
        peak = row.bf16_flops or row.f32_flops
        assert peak is not None and 1e12 < peak < 1e16, row.name
        assert 100 < peak / row.hbm_bandwidth * 2 < 2000 or row.bf16_flops is None, f"{row.name}: FLOPs a byte"
        assert 8e9 < row.hbm_bytes < 1e12, row.name


def test_cpu_peak_is_measured_and_the_best_ever_seen_stands(fresh):
    first = measured_cpu_flops()
    assert 1e9 < first < 1e14
    assert peak_flops("cpu", "float32") == first
    assert peak_flops("cpu", "bfloat16") is None
    (path,) = fresh.glob("cpu_peak-*.json")
    path.write_text('{"flops": 1e15}')
    measured_cpu_flops.cache_clear()
    assert measured_cpu_flops() == 1e15
    path.write_text('{"flops": 1.0}')
    measured_cpu_flops.cache_clear()
    assert measured_cpu_flops() > 1e9
    assert np.isclose(device.read_json(path)["flops"], measured_cpu_flops())  # type: ignore[index]
