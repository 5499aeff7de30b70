"""What goes between slices, in HLO text as the TPU compiler writes it: sends and receives by way of the host."""
# ruff: noqa: E501

import re

import pytest

from jaxllm.plan.collectives import collectives
from jaxllm.plan.hlo import parse
from jaxllm.plan.slices import slice_axes, slice_shape

MESH = {"replica": 2, "stage": 1, "fsdp": 4}
HOST = 'is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_host_transfer_rendezvous="NAME",_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="TYPE"}'
TEXT = """HloModule two_slices, is_scheduled=true

%body (state: (s32[], bf16[16,8])) -> (s32[], bf16[16,8]) {
  %state = (s32[], bf16[16,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = bf16[16,8]{1,0} get-tuple-element(%state), index=1
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %inside = bf16[16,8]{1,0} all-reduce(%x), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  %token = token[] after-all()
  %send.1 = (bf16[16,8]{1,0}, u32[], token[]) send(%inside, %token), channel_id=2, HOST1
  %recv.1 = (bf16[16,8]{1,0}, u32[], token[]) recv(%token), channel_id=3, HOST1
  %beside = bf16[16,8]{1,0} convolution(%x, %x), backend_config={"estimated_cycles":"50"}
  %send-done.1 = token[] send-done(%send.1), channel_id=2, is_host_transfer=true
  %recv-done.1 = (bf16[16,8]{1,0}, token[]) recv-done(%recv.1), channel_id=3, is_host_transfer=true
  %behind = bf16[16,8]{1,0} convolution(%x, %x), backend_config={"estimated_cycles":"7000"}
  ROOT %out = (s32[], bf16[16,8]{1,0}) tuple(%next, %behind)
}

%condition (state: (s32[], bf16[16,8])) -> pred[] {
  %state = (s32[], bf16[16,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %end = s32[] constant(5)
  ROOT %goes_on = pred[] compare(%i, %end), direction=LT
}

ENTRY %main (x: bf16[16,8]) -> bf16[16,8] {
  %x = bf16[16,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], bf16[16,8]{1,0}) tuple(%zero, %x)
  %loop = (s32[], bf16[16,8]{1,0}) while(%start), condition=%condition, body=%body
  %token = token[] after-all()
  %send.2 = (bf16[4,8]{1,0}, u32[], token[]) send(%x, %token), channel_id=4, HOST2
  %recv.2 = (bf16[8,8]{1,0}, u32[], token[]) recv(%token), channel_id=5, HOST2
  %send-done.2 = token[] send-done(%send.2), channel_id=4, is_host_transfer=true
  %recv-done.2 = (bf16[8,8]{1,0}, token[]) recv-done(%recv.2), channel_id=5, is_host_transfer=true
  %other = (bf16[99,8]{1,0}, u32[], token[]) send(%x, %token), channel_id=6, is_host_transfer=true
  ROOT %last = bf16[16,8]{1,0} get-tuple-element(%loop), index=1
}
""".replace("HOST1", HOST.replace("NAME", "all-reduce.7_0").replace("TYPE", "ALL_REDUCE"))


def program(kind):
    return parse(TEXT.replace("HOST2", HOST.replace("NAME", "second").replace("TYPE", kind)))


def between(kind, bytes_per_cycle=0.0):
    return {row.kind: row for row in collectives(program(kind), MESH, 2, bytes_per_cycle) if row.between_slices}


def test_a_sum_over_slices_counts_as_often_as_its_loop_turns():
    """Each of two slices sends half of the array to be summed, and half of the sum."""
    row = between("ALL_TO_ALL")["all-reduce"]
    assert (row.axes, row.count, row.bytes, row.exposed_bytes) == (("replica",), 5, 5 * 256, 5 * 256)


@pytest.mark.parametrize(
    ("kind", "name", "sent"),
    [
        ("ALL_GATHER", "all-gather", 128 // 2),  # half of what is received
        ("REDUCE_SCATTER", "reduce-scatter", 64 // 2),
        ("ALL_TO_ALL", "all-to-all", 64 // 2),
        ("ONE_TO_ONE", "collective-permute", 64),
    ],
)
def test_bytes_by_kind(kind, name, sent):
    row = between(kind)[name]
    assert (row.count, row.bytes) == (1, sent)


def test_what_is_sent_while_the_program_computes_is_hidden():
    """50 cycles beside each of five sums of 256 bytes; what runs after the end of the receive is beside nothing."""
    assert between("ONE_TO_ONE", 2.0)["all-reduce"].exposed_bytes == 5 * (256 - 100)
    assert between("ONE_TO_ONE", 9.0)["all-reduce"].exposed_bytes == 0
    assert between("ONE_TO_ONE", 9.0)["collective-permute"].exposed_bytes == 64


def test_inside_a_slice_devices_are_counted_from_its_first():
    (row,) = (row for row in collectives(program("ONE_TO_ONE"), MESH, 2) if not row.between_slices)
    assert (row.kind, row.axes, row.count) == ("all-reduce", ("fsdp",), 5)


def test_a_name_of_another_handler_is_none_of_it():
    text = re.sub('handler_name="xla_megascale_runtime"', 'handler_name="callback"', TEXT)
    assert not [row for row in collectives(parse(text), MESH, 2) if row.between_slices]


@pytest.mark.parametrize(
    ("mesh", "slices", "inside", "axes"),
    [
        ({"replica": 2, "stage": 1, "fsdp": 4}, 1, {"replica": 2, "stage": 1, "fsdp": 4}, ()),
        ({"replica": 4, "stage": 1, "fsdp": 4}, 2, {"replica": 2, "stage": 1, "fsdp": 4}, ("replica",)),
        ({"replica": 1, "stage": 4, "fsdp": 4}, 2, {"replica": 1, "stage": 2, "fsdp": 4}, ("stage",)),
        ({"replica": 2, "stage": 2, "fsdp": 4}, 4, {"replica": 1, "stage": 1, "fsdp": 4}, ("replica", "stage")),
    ],
)
def test_replica_and_stage_span_slices(mesh, slices, inside, axes):
    assert slice_shape(mesh, slices) == inside and slice_axes(mesh, slices) == axes
