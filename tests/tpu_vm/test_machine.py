import json
import math
from pathlib import Path

import pytest

from jaxllm.plan.topology import CORES_IN_NAME, GENERATIONS, SHAPES

MACHINE = {"name": "mine", "type": "v5e-16", "zone": "us-west4-a", "bucket": "gs://bucket/jaxllm"}


@pytest.mark.parametrize(
    ("name", "flags", "workers"),
    [
        ("v5e-8", ["--accelerator-type=v5litepod-8"], 1),
        ("v5litepod-16", ["--accelerator-type=v5litepod-16"], 4),
        ("v5e:4x4", ["--accelerator-type=v5litepod-16"], 4),
        ("V6E-256", ["--accelerator-type=v6e-256"], 64),
        ("v5p-8", ["--accelerator-type=v5p-8"], 1),
        ("v4-32", ["--accelerator-type=v4-32"], 4),
        ("v5p:4x4x8", ["--accelerator-type=v5p-256"], 32),
        ("v5p:4x4x12", ["--type=v5p", "--topology=4x4x12"], 48),
    ],
)
def test_a_slice_has_flags_and_workers(tool, name, flags, workers):
    found = tool("machine").parse_slice(name)
    assert (found.flags, found.workers) == (flags, workers)


def test_every_topology_that_can_be_planned_can_be_rented(tool):
    parse = tool("machine").parse_slice
    for generation, dimensions in GENERATIONS.items():
        for shape in SHAPES[dimensions]:
            chips = math.prod(map(int, shape.split("x")))
            named = f"{generation}-{chips * (2 if generation in CORES_IN_NAME else 1)}"
            assert parse(f"{generation}:{shape}").chips == parse(named).chips == chips


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v5e-12", "there is no v5e-12: the nearest sizes of v5e are v5e-4, v5e-8, v5e-16"),
        ("v5p-9", "there is no v5p-9: the nearest sizes of v5p are v5p-8, v5p-16, v5p-32"),
        ("v5lite-16", r"got 'v5lite-16'; did you mean v5litepod\?"),
        ("v5e", r"such as v5e-16 or v5p:4x4x4: got 'v5e' \(TPUs"),
        ("tpu7x-8", "comes through GKE only"),
        ("v5e:4x4x4", "a shape of v5e has 2 numbers: got 'v5e:4x4x4'"),
        ("v5e:2x3", "there is no v5e:2x3"),
        ("a100-8", r"\(TPUs: v4, v5e, v5p, v6e\)"),
    ],
)
def test_a_slice_that_does_not_exist_is_refused(tool, name, words):
    with pytest.raises(ValueError, match=words):
        tool("machine").parse_slice(name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"typ": "v5e-16"}, "unknown key typ: did you mean type"),
        ({"name": "My TPU"}, "name must be lower-case letters"),
        ({"zone": "us-west4"}, "zone must look like us-west4-a: got 'us-west4'"),
        ({"bucket": "my-bucket"}, "bucket must be a folder in a bucket, such as gs://"),
        ({"bucket": "gs://bucket/"}, "no / at its end"),
        ({"slices": 2}, "several slices come by a queued resource only: set queued = true"),
        ({"slices": 2, "queued": True, "type": "v5e-8"}, "v5e-8 has one; take a larger type"),
        ({"slices": 0}, "slices must be at least 1: got 0"),
        ({"slices": True}, "slices must be a whole number: got True"),
        ({"spot": "yes"}, "spot must be true or false: got 'yes'"),
        ({"create_flags": [1]}, "create_flags must be a list of texts"),
        ({"type": "v5e-12"}, "there is no v5e-12"),
        ({"zone": None}, "missing: zone"),
    ],
)
def test_a_machine_that_cannot_be_is_refused_with_its_file(tool, tmp_path, change, words):
    path = tmp_path / "mine.toml"
    values = {name: value for name, value in (MACHINE | change).items() if value is not None}
    path.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items()))
    with pytest.raises(ValueError, match=words) as caught:
        tool("machine").load_machine(path)
    assert str(caught.value).startswith(str(path))


def test_a_file_that_is_no_toml_or_not_there_is_said(tool, tmp_path):
    (tmp_path / "mine.toml").write_text("name = mine")
    with pytest.raises(ValueError, match=r"mine.toml: Invalid value \(at line 1"):
        tool("machine").load_machine(tmp_path / "mine.toml")
    with pytest.raises(FileNotFoundError, match="copy one of .*v5e-8.toml"):
        tool("machine").load_machine(tmp_path / "yours.toml")


def test_every_machine_that_comes_with_it_is_one(tool):
    paths = sorted((Path(tool("machine").__file__).parent / "machines").glob("*.toml"))
    assert len(paths) >= 3
    for path in paths:
        assert tool("machine").load_machine(path).workers >= 1
