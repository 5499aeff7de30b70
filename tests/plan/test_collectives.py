"""Collectives in HLO text as the TPU compiler writes it: each once, by its kind, bytes and mesh axes."""
# ruff: noqa: E501

import numpy as np
import pytest

from jaxllm.plan.collectives import collectives
from jaxllm.plan.groups import device_groups, mesh_axes
from jaxllm.plan.hlo import parse
from tests.plan.test_hlo import TEXT

MESH = {"data": 2, "tensor": 4}
TENSOR = "replica_groups={{0,1,2,3},{4,5,6,7}}"

CHAIN = """HloModule chain, is_scheduled=true

%start (p: bf16[16,8]) -> (bf16[16,8], bf16[64,8], u32[]) {
  %p = bf16[16,8]{1,0} parameter(0)
  %gather.1 = bf16[64,8]{1,0} all-gather(%p), channel_id=3, GROUPS, dimensions={0}
  ROOT %pieces = (bf16[16,8]{1,0}, bf16[64,8]{1,0}, u32[]) tuple(%p, %gather.1)
}

%async_collective_fusion.7 (p: bf16[16,8]) -> (bf16[64,8], bf16[16,8], bf16[64,8]) {
  %p = bf16[16,8]{1,0} parameter(0)
  %gather.2 = bf16[64,8]{1,0:T(8,128)S(1)} all-gather(%p), channel_id=3, GROUPS, dimensions={0}
  ROOT %pieces = (bf16[64,8]{1,0}, bf16[16,8]{1,0}, bf16[64,8]{1,0}) tuple(%gather.2, %p, %gather.2)
}

%end (p: bf16[16,8]) -> bf16[64,8] {
  %p = bf16[16,8]{1,0} parameter(0)
  ROOT %gather.3 = bf16[64,8]{1,0} all-gather(%p), channel_id=3, GROUPS, dimensions={0}
}

%all-reduce-scatter.1 (p: bf16[4,64]) -> bf16[4,16] {
  %p = bf16[4,64]{1,0} parameter(0)
  %sum = bf16[4,64]{1,0} all-reduce(%p), channel_id=9, GROUPS, to_apply=%add
  %zero = s32[] constant(0)
  ROOT %kept = bf16[4,16]{1,0} dynamic-slice(%sum, %zero, %zero), dynamic_slice_sizes={4,16}
}

ENTRY %main (x: bf16[16,8]) -> bf16[64,8] {
  %x = bf16[16,8]{1,0} parameter(0)
  %y = bf16[4,64]{1,0} parameter(1)
  %async-collective-start = (bf16[16,8]{1,0}, bf16[64,8]{1,0}, u32[]) fusion(%x), kind=kCustom, calls=%start
  %beside = (bf16[64,8]{1,0}, bf16[16,8]{1,0}, bf16[64,8]{1,0}) fusion(%x), kind=kOutput, calls=%async_collective_fusion.7, backend_config={"estimated_cycles":"100"}
  %async-collective-done = bf16[64,8]{1,0} fusion(%x), kind=kCustom, calls=%end
  %scattered = bf16[4,16]{1,0} fusion(%y), kind=kCustom, calls=%all-reduce-scatter.1
  %first = f32[8]{0} all-reduce(%y), channel_id=1, GROUPS, to_apply=%add
  %second = (f32[8]{0}, f32[24]{0}) all-reduce(%y, %y), channel_id=1, GROUPS, to_apply=%add
  %rows = bf16[16,8]{1,0} ragged-all-to-all(%x, %big, %a, %b, %c, %d), channel_id=1, GROUPS
  %back = bf16[99,8]{1,0} ragged-all-to-all(%x, %big, %a, %b, %c, %d), channel_id=1, GROUPS
  %send.1 = (bf16[16,8]{1,0}, bf16[16,8]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), channel_id=4, source_target_pairs={{0,1},{1,0}}
  %got.1 = bf16[16,8]{1,0} collective-permute-done(%send.1)
  %send.2 = (bf16[16,8]{1,0}, bf16[16,8]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), channel_id=5, source_target_pairs={{0,4},{4,0}}
  %product = f32[8]{0} convolution(%x, %x), backend_config={"estimated_cycles":"100"}
  %got.2 = bf16[16,8]{1,0} collective-permute-done(%send.2)
  ROOT %cut = bf16[2,16]{1,0} reduce-scatter(%y), channel_id=1, GROUPS, dimensions={0}, to_apply=%add
}
""".replace("GROUPS", TENSOR)


@pytest.fixture(scope="module")
def found():
    return {(row.kind, row.axes): row for row in collectives(parse(CHAIN), MESH)}


def test_an_asynchronous_collective_in_three_fusions_counts_once_and_is_hidden(found):
    row = found["all-gather", ("tensor",)]
    assert (row.count, row.bytes, row.exposed_bytes) == (1, 64 * 8 * 2 * 3 // 4, 0)


def test_collectives_that_share_a_channel_all_count(found):
    """`shard_map` gives channel 1 to all of its own."""
    row = found["all-reduce", ("tensor",)]
    assert (row.count, row.bytes) == (2, 2 * (32 + 128) * 3 // 4) and row.exposed_bytes == row.bytes


def test_a_sum_of_which_a_slice_is_kept_is_a_reduce_scatter(found):
    """One fused, of 512 bytes, and one by name, of four times what it leaves."""
    row = found["reduce-scatter", ("tensor",)]
    assert (row.count, row.bytes) == (2, 512 * 3 // 4 + 2 * 16 * 2 * 3)


def test_a_sum_scattered_over_a_part_of_its_group_is_gathered_over_the_rest():
    """Over all eight devices, cut in four: 7/8 of it to scatter, and 1/2 of the quarter to gather."""
    text = CHAIN.replace(f"channel_id=9, {TENSOR}", "channel_id=9, replica_groups={{0,1,2,3,4,5,6,7}}")
    row = {(row.kind, row.axes): row for row in collectives(parse(text), MESH)}["reduce-scatter", ("data", "tensor")]
    assert (row.count, row.bytes) == (1, 512 * 7 // 8 + 512 // 4 // 2)


def test_a_ragged_exchange_sends_no_more_than_goes_in_or_comes_out(found):
    row = found["ragged-all-to-all", ("tensor",)]
    assert (row.count, row.bytes) == (2, 2 * 16 * 8 * 2 * 3 // 4)


def test_a_permutation_is_hidden_where_something_runs_before_its_end(found):
    alone, beside = found["collective-permute", ("tensor",)], found["collective-permute", ("data",)]
    assert (alone.count, alone.bytes, alone.exposed_bytes) == (1, 256, 256)
    assert (beside.count, beside.bytes, beside.exposed_bytes) == (1, 256, 0)


def test_in_a_loop_they_count_as_often_as_it_turns():
    """The two gathers in its body have one channel, too."""
    rows = {row.kind: row for row in collectives(parse(TEXT), MESH)}
    gather, reduce = rows["all-gather"], rows["all-reduce"]
    assert (gather.axes, gather.count, gather.bytes) == (("tensor",), 10, 10 * 8 * 16 * 2 * 3 // 4)
    assert (reduce.axes, reduce.count, reduce.bytes) == (("data",), 5, 5 * 2 * 64 // 2)


@pytest.mark.parametrize(
    ("words", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}", [[0, 1], [2, 3]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
        ("channel_id=1", [[0, 1, 2, 3]]),
    ],
)
def test_groups_of_devices(words, groups):
    line = f"  ROOT %g = f32[4]{{0}} all-reduce(%x), {words}, to_apply=%add"
    program = parse(TEXT.replace("  ROOT %last = f32[16]{0} get-tuple-element(%loop), index=1", line))
    assert device_groups(program.computations["main"].instructions["g"], 4).tolist() == groups


def test_axes_of_groups():
    assert mesh_axes(np.array([[0, 1, 2, 3], [4, 5, 6, 7]]), MESH) == ("tensor",)
    assert mesh_axes(np.array([[0, 5]]), MESH) == ("data", "tensor")
