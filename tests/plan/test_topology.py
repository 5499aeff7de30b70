"""Names of TPU slices, and the compiler that knows them."""

import importlib.util
import os
import subprocess
import sys

import pytest

from jaxllm.plan import topology_devices
from jaxllm.plan.topology import ABSENT_MACHINE, _parse

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("v5e:4x4", ("v5e", "4x4")),
        ("v5e-16", ("v5e", "4x4")),
        ("v5litepod-8", ("v5e", "2x4")),
        ("v5litepod-16", ("v5e", "4x4")),
        ("v6e-16", ("v6e", "4x4")),
        ("v5lite:4x4", ("v5e", "4x4")),
        ("trillium-16", ("v6e", "4x4")),
        ("v6e-1", ("v6e", "1x1")),
        ("v5p-32", ("v5p", "2x2x4")),
        ("v4-8", ("v4", "2x2x1")),
        ("v6e-256", ("v6e", "16x16")),
        ("V5P:2x4x4", ("v5p", "2x4x4")),
        ("v5p:4x4x12", ("v5p", "4x4x12")),
    ],
)
def test_names(name, parsed):
    assert _parse(name) == parsed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5:4x4", r"such as v5e:4x4 or v5p-32: got 'v5:4x4'; did you mean v5p:2x2x4 .v5p-32. or v5e:4x4 .v5e-16.\?"),
        ("h100", r"got 'h100' \(generations: v4, v5e, v5p, v6e"),
        ("v7-16", r"got 'v7-16'; did you mean v6e:4x4 \(v6e-16\)\?"),
        ("tpu7x:4x4x4", r"got 'tpu7x:4x4x4'; did you mean v6e:8x8 \(v6e-64\)\?"),
        ("ironwood-64", r"; did you mean v6e:8x8 \(v6e-64\)\?"),
        ("v3-8", r"; did you mean v4:2x2x1 \(v4-8\)\?"),
        ("v5litpod-16", r"; did you mean v5e:4x4 \(v5e-16\)\?"),
        ("v6-100", r"; did you mean v6e:8x16 \(v6e-128\)\?"),
        ("v6", r"; did you mean v6e\?"),
        ("v5p", r"got 'v5p'; name its size, such as v5p:2x2x4 \(v5p-32\), "),
        ("v5e:4x", r"got 'v5e:4x'; name its size, such as v5e:4x4 \(v5e-16\), "),
        ("v5e:4x4x4", "topology of v5e has 2 dimensions: got '4x4x4'; near it are v5e:8x8 .v5e-64., "),
        ("v5e:3x5", r"there is no v5e:3x5: near it are v5e:4x4 \(v5e-16\), v5e:2x4 \(v5e-8\), v5e:4x8 \(v5e-32\)$"),
        ("v5e:4x2", r"there is no v5e:4x2: near it are v5e:2x4 "),
        ("v5e:32x32", r"there is no v5e:32x32: near it are v5e:16x16 "),
        ("v6e:0x4", r"there is no v6e:0x4: near it are v6e:1x1 "),
        ("v5p:1x1x1", r"there is no v5p:1x1x1: near it are v5p:2x2x1 \(v5p-8\), .*, or sides that are multiples of 4"),
        ("v5p:8x4x4", "there is no v5p:8x4x4: near it are v5p:4x4x8 "),
        ("v4:16x16x20", "there is no v4:16x16x20: near it are v4:16x16x16 "),
        ("v5e-17", "there is no v5e-17: near it are v5e:4x4 .v5e-16., .*; v5e goes from v5e-1 to v5e-256"),
        ("v5p-33", "there is no v5p-33: near it are v5p:2x2x4 .v5p-32., "),
        ("v5p-16x", "got 'v5p-16x'"),
    ],
)
def test_names_that_are_none(name, message):
    with pytest.raises(ValueError, match=message):
        _parse(name)


def test_slices_are_counted_from_one():
    with pytest.raises(ValueError, match="slices must be at least 1: got 0"):
        topology_devices("v5e:2x4", 0)


def test_the_compiler_is_named_where_it_is_missing(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "libtpu" else found(name))
    with pytest.raises(ValueError, match=r"planning for a TPU needs its compiler, libtpu: pip install 'jaxllm\[tpu\]'"):
        topology_devices("v5e:2x4")


@needs_libtpu
def test_a_slice_is_opened_without_a_word_and_without_a_trace():
    """In a process of its own: libtpu says what it has to say when it is first opened."""
    code = (
        "import os; from jaxllm.plan import topology_devices; before = dict(os.environ); "
        "print(len(topology_devices('v5e:2x4')), before == dict(os.environ))"
    )
    surroundings = {name: value for name, value in os.environ.items() if name not in ABSENT_MACHINE}
    done = subprocess.run(
        [sys.executable, "-c", code], env=surroundings | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "8 True\n" and done.stderr == ""
