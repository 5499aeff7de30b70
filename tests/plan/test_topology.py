"""Names of TPU slices."""

import pytest

from jaxllm.plan.topology import _parse


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("v5e:4x4", ("v5e", "4x4")),
        ("v5e-16", ("v5e", "4x4")),
        ("v5litepod-8", ("v5e", "2x4")),
        ("v6e-1", ("v6e", "1x1")),
        ("v5p-32", ("v5p", "2x2x4")),
        ("v4-8", ("v4", "2x2x1")),
        ("v6e-256", ("v6e", "16x16")),
        ("V5P:2x4x4", ("v5p", "2x4x4")),
    ],
)
def test_names(name, parsed):
    assert _parse(name) == parsed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5:4x4", r"such as v5e:4x4 or v5p-32: got 'v5:4x4'; did you mean v5[ep]"),
        ("h100", r"got 'h100'.*generations: v4, v5e, v5p, v6e"),
        ("v5e:4x4x4", "topology of v5e has 2 dimensions: got '4x4x4'; slices that can be rented: 1x1, 2x2, 2x4"),
        ("v5e-17", "there is no v5e-17: v5e has v5e-1, v5e-4, v5e-8, v5e-16"),
        ("v5p-33", "there is no v5p-33: v5p has v5p-8, v5p-16"),
        ("v5p-16x", "got 'v5p-16x'"),
    ],
)
def test_names_that_are_none(name, message):
    with pytest.raises(ValueError, match=message):
        _parse(name)
