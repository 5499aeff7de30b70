"""What a mesh cannot split evenly is refused by field, with the sizes that work."""

import math
import re

import pytest

from jaxllm.sharding import AxisSize, MeshConfig, MeshError, check_batch, check_divides, left_whole, mesh_sizes, use_all


@pytest.mark.parametrize(
    ("mesh", "axis", "field", "size", "message"),
    [
        ({"fsdp": 16}, "embed", "model.embed_dim", 100, "mesh.fsdp must .* fsdp=16, .*=100; sizes .*: 1, 2, 4, 5, 10, 20, 25$"),
        (
            {"fsdp": 2, "context": 8},
            "embed",
            "model.embed_dim",
            24,
            "mesh.fsdp x mesh.context must .*; products .*: 1, 2, 3, 4,",
        ),
        ({"tensor": 8}, "heads", "model.num_heads", 12, "mesh.tensor must divide model.num_heads: got tensor=8, .*: 1, 2, 3,"),
        (
            {"tensor": 16},
            "ffw",
            "model.ffw_dim",
            1000,
            "mesh.tensor must divide model.ffw_dim: got tensor=16, .*=1000; .* 8, 10",
        ),
        ({"stage": 3}, "layers", "model.num_layers", 32, "mesh.stage must divide model.num_layers: got stage=3, .* 1, 2, 4, 8"),
        ({"expert": 3}, "experts", "model.experts.num_experts", 8, "mesh.expert must divide .*num_experts.* 1, 2, 4, 8$"),
        (
            {"context": 3},
            "time",
            "data.seq_len",
            1024,
            "mesh.context must divide data.seq_len: got context=3, .* 1, 2, 4, 8, 16$",
        ),
    ],
)
def test_a_size_that_does_not_divide(mesh, axis, field, size, message):
    with pytest.raises(MeshError, match=message):
        check_divides(MeshConfig(**mesh), [AxisSize(axis, field, size)])
    check_divides(MeshConfig(**mesh), [AxisSize(axis, field, size * 48)])


@pytest.mark.parametrize(
    ("mesh", "rows", "message"),
    [
        (
            {"data": 3},
            {"batch_size": 8},
            "mesh.data must divide batch_size: got data=3, batch_size=8; sizes .*: 1, 2, 4, 8; or a batch_size of 6 or 9$",
        ),
        (
            {"replica": 2, "fsdp": 4},
            {"batch_size": 12},
            "mesh.replica x mesh.fsdp must .* products that work: 1, 2, 3, 4, 6, 12; or a batch_size of 8 or 16$",
        ),
        (
            {"expert": 4},
            {"batch_size": 8, "accumulate": 4},
            "mesh.expert must .* batch_size / accumulate: .*=2; .*: 1, 2; or a batch_size of 16$",
        ),
        ({"fsdp": 8, "tensor": 2}, {"batch_size": 17}, "mesh.fsdp must .* batch_size=17; .*: 1; or a batch_size of 16 or 24$"),
        ({"stage": 4}, {"batch_size": 6}, "mesh.stage must divide batch_size: got stage=4"),
        (
            {"stage": 2},
            {"batch_size": 8, "microbatches": 3},
            "multiple of mesh.stage=2 that divides .* numbers that work: 2, 4, 8$",
        ),
        (
            {"stage": 2, "fsdp": 2},
            {"batch_size": 8, "microbatches": 8},
            "that, times mesh.fsdp, divides batch_size: got 8 and batch_size=8; numbers that work: 2, 4$",
        ),
    ],
)
def test_rows_that_do_not_divide(mesh, rows, message):
    with pytest.raises(MeshError, match=message) as refused:
        check_batch(MeshConfig(**mesh), **rows)
    for works in re.findall(r"\d+", str(refused.value).partition("a batch_size of ")[2]):
        check_batch(MeshConfig(**mesh), **rows | {"batch_size": int(works)})


def test_what_fits_is_let_pass():
    check_batch(MeshConfig(), 7)
    check_batch(MeshConfig(stage=2, fsdp=2), 16, 2, 4)
    check_divides(MeshConfig(tensor=8), [AxisSize("vocab", "model.vocab_size", 65)])


@pytest.mark.parametrize(
    ("mesh", "rows", "advice"),
    [
        ({}, (16,), ""),
        ({}, (24,), "set --batch-size 16 or 32"),
        ({}, (24, 2), "set --batch-size 32"),
        ({"data": 12}, (24,), "set --batch-size 16 or 32 and --mesh.data 16"),
        ({"data": 1, "fsdp": 4, "tensor": 2}, (8,), "set --mesh.data 2"),
        ({"data": 1, "fsdp": 8, "tensor": 4}, (32,), "choose --mesh sizes whose product divides 16"),
        ({"data": 3}, (16,), "set --mesh.data 16"),
    ],
)
def test_advice_that_is_followed_uses_all_devices(mesh, rows, advice):
    assert use_all(MeshConfig(**mesh), 16, *rows) == advice
    data, batch_size = (re.search(rf"--{name} (\d+)", advice) for name in ("mesh.data", "batch-size"))
    mesh |= {"data": int(data[1])} if data else {}
    rows = (int(batch_size[1]), *rows[1:]) if batch_size else rows
    if "choose" not in advice:
        sizes = mesh_sizes(MeshConfig(**mesh), 16, rows[0] // (rows[1] if rows[1:] else 1))
        assert math.prod(sizes.values()) == 16 and use_all(MeshConfig(**mesh), 16, *rows) == ""
        check_batch(MeshConfig(**sizes), *rows)


def test_what_is_left_whole_is_told():
    sizes = [AxisSize("kv_heads", "model.num_kv_heads", 4), AxisSize("vocab", "model.vocab_size", 65)]
    assert left_whole(MeshConfig(fsdp=8), sizes) == []
    assert left_whole(MeshConfig(tensor=8), sizes) == [
        "model.num_kv_heads=4 is not split: mesh.tensor=8 does not divide it; sizes that work: 1, 2, 4",
        "model.vocab_size=65 is not split: mesh.tensor=8 does not divide it; sizes that work: 1, 5, 13",
    ]
