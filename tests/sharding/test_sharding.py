import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from jaxllm.sharding import (
    Axes,
    AxisSize,
    MeshConfig,
    balanced_order,
    check_divides,
    in_order,
    make_mesh,
    shard,
    shardings_for,
    spec,
    use_mesh,
)


def test_rules_map_logical_axes_to_mesh_axes():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    assert spec(("batch", "time", "embed"), (8, 16, 32), mesh) == P(("data", "fsdp"), None, None)
    assert spec(("embed", "ffw"), (32, 64), mesh) == P(None, "tensor")
    assert spec(("embed", "ffw"), (32, 64), mesh, stored=True) == P("fsdp", "tensor")


def test_a_mesh_axis_splits_the_first_dimension_that_asks_for_it():
    mesh = make_mesh(MeshConfig(fsdp=2, expert=2, tensor=2))
    assert spec(("experts", "embed", "ffw"), (4, 32, 64), mesh, stored=True) == P("expert", "fsdp", "tensor")
    assert spec(("embed", "ffw"), (32, 64), mesh, stored=True) == P(("fsdp", "expert"), "tensor")
    assert spec(("batch", "time", "experts"), (8, 16, 4), mesh) == P(("fsdp", "expert"), None, None)


def test_the_residual_stream_is_split_along_the_sequence():
    mesh = make_mesh(MeshConfig(fsdp=2, context=2, tensor=2))
    assert spec(("batch", "residual_time", "embed"), (8, 16, 32), mesh) == P("fsdp", ("context", "tensor"), None)
    assert spec(("batch", "time", "embed"), (8, 16, 32), mesh) == P("fsdp", "context", None)
    assert spec(("batch", "residual_time", "embed"), (8, 6, 32), mesh) == P("fsdp", "context", None)  # 6 / 4 does not go
    assert spec(("batch", "residual_time", "embed"), (8, 1, 32), mesh) == P("fsdp", None, None)  # nor does one token


def test_balanced_order_gives_each_device_an_early_and_a_late_stretch():
    mesh = make_mesh(MeshConfig(context=2))
    assert balanced_order(8) is None
    with use_mesh(mesh):
        order = balanced_order(8)
        assert order is not None and order.places == (0, 1, 6, 7, 2, 3, 4, 5)
        assert balanced_order(6) is None
        batch = {"tokens": jnp.arange(8)[None], "positions": jnp.arange(8)[None]}
        moved = in_order(batch, order)
    assert moved["tokens"][0].tolist() == list(order.places)
    assert moved["tokens"][0][order.back()].tolist() == list(range(8))


def test_slices_are_told_apart_by_replica_or_stage():
    class Chip:
        platform, device_kind = "tpu", "TPU v5 lite"

        def __init__(self, slice_index):
            self.slice_index = slice_index

    chips = [Chip(number // 4) for number in range(8)]
    with pytest.raises(
        ValueError, match="mesh.replica x mesh.stage must be a multiple of the 2 slices.*: got 1 x 1; set mesh.replica=2"
    ):
        make_mesh(MeshConfig(data=8), devices=chips)


def test_a_mistyped_axis_is_refused():
    mesh = make_mesh(MeshConfig(tensor=2))
    with pytest.raises(ValueError, match="unknown logical axis 'haeds': expected one of batch, time"):
        spec(("haeds",), (8,), mesh)


def test_what_may_be_replicated_is_and_the_rest_is_refused():
    mesh = make_mesh(MeshConfig(tensor=8))
    assert spec(("vocab", "embed"), (65, 32), mesh) == P(None, None)
    with pytest.raises(ValueError, match="axis 'ffw' of size 12 is split over mesh axes .'tensor',. into 8 equal parts"):
        spec(("ffw",), (12,), mesh)


def test_shard_needs_no_mesh_and_acts_under_one():
    x = jnp.ones((8, 4, 16))
    assert shard(x, "batch", "time", "embed") is x
    mesh = make_mesh(MeshConfig(data=8))
    with use_mesh(mesh):
        jaxpr = str(jax.make_jaxpr(lambda x: shard(x, "batch", "time", "embed"))(x))
    assert "sharding_constraint" in jaxpr and "data" in jaxpr


def test_parameters_at_rest_are_spread_over_fsdp():
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    tree = {"kernel": jax.ShapeDtypeStruct((2, 32, 64), jnp.float32)}
    placed = shardings_for(tree, {"kernel": Axes(("layers", "embed", "ffw"))}, mesh)
    assert placed["kernel"].shard_shape((2, 32, 64)) == (2, 8, 32)


def split(mesh):
    return {axis: size for axis, size in mesh.shape.items() if size > 1}


def test_default_mesh_is_data_over_as_many_devices_as_divide_the_batch():
    assert split(make_mesh(MeshConfig(), batch_size=16)) == {"data": 8}
    assert split(make_mesh(MeshConfig(), batch_size=12)) == {"data": 6}
    assert split(make_mesh(MeshConfig(fsdp=2, tensor=2), batch_size=12)) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert split(make_mesh(MeshConfig(replica=2, expert=2), batch_size=12)) == {"replica": 2, "expert": 2}
    assert split(make_mesh(MeshConfig(stage=2, context=2), batch_size=12)) == {"stage": 2, "data": 2, "context": 2}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(data=16), "mesh data=16 x fsdp=1 x tensor=1 needs 16 devices: this machine has 8"),
        (
            MeshConfig(data=8),
            "mesh.data must divide batch_size: got data=8, batch_size=12; .* 1, 2, 3, 4, 6, 12; or a batch_size of 8 or 16$",
        ),
    ],
)
def test_impossible_meshes_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(config, batch_size=12)


def test_a_model_that_does_not_divide_is_refused_by_field():
    mesh = make_mesh(MeshConfig(tensor=8))
    with pytest.raises(
        ValueError, match="mesh.tensor must divide model.num_heads: got tensor=8, model.num_heads=4; .* 1, 2, 4"
    ):
        check_divides(mesh, [AxisSize("heads", "model.num_heads", 4)])
