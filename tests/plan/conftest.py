"""Rates that need no measuring, for tests of what a plan says of the devices here: `test_timed.py` measures."""

import math
import sys

import pytest

import jaxllm.plan  # noqa: F401
from jaxllm.plan.rates import CURVES, REDUCES, Rates

TWO_CORES = Rates(
    products=5e10,
    bandwidth=((2**18, 4e10), (2**22, 2e10), (2**26, 6e9)),
    transposed=((2, 2e9), (512, 1e9)),
    reduced={(name, last): 4e9 for name in REDUCES for last in (True, False)},
    elementwise=5e9,
    curves=dict.fromkeys(CURVES, 5e8),
    call=1e-6,
    new_memory=3e-10,
    meeting=1e-4,
    sum_bandwidth=1e9,
)
"""Those of a machine with two cores, rounded."""


def _by_size(function, shapes, dtype):
    return 1e-9 * sum(math.prod(shape) for shape in shapes)


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr("jaxllm.plan.products.loop_seconds", _by_size)
    for name in ("compile", "search"):
        monkeypatch.setattr(sys.modules[f"jaxllm.plan.{name}"], "measured_rates", lambda dtype: TWO_CORES)
