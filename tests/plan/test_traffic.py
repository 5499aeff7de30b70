"""Bytes and FLOPs of a program's text."""

# ruff: noqa: E501

import pytest

from jaxllm.plan.hlo import parse
from jaxllm.plan.traffic import product_flops, traffic_bytes

TEXT = """HloModule step, is_scheduled=true

%layer (stack: f32[4,8,16], i: s32[]) -> f32[8,16] {
  %stack = f32[4,8,16]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %row = f32[1,8,16]{2,1,0} dynamic-slice(%stack, %i, %zero, %zero), dynamic_slice_sizes={1,8,16}
  %flat = f32[8,16]{1,0} bitcast(%row)
  ROOT %curved = f32[8,16]{1,0} tanh(%flat)
}

%put (stack: f32[4,8,16], x: f32[8,16], i: s32[]) -> f32[4,8,16] {
  %stack = f32[4,8,16]{2,1,0} parameter(0)
  %x = f32[8,16]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  %row = f32[1,8,16]{2,1,0} bitcast(%x)
  ROOT %all = f32[4,8,16]{2,1,0} dynamic-update-slice(%stack, %row, %i, %zero, %zero)
}

%product (a: f32[8,16], b: f32[16,32]) -> f32[8,32] {
  %a = f32[8,16]{1,0} parameter(0)
  %b = f32[16,32]{1,0} parameter(1)
  ROOT %dot = f32[8,32]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (stack: f32[4,8,16], i: s32[], b: f32[16,32]) -> f32[8,32] {
  %stack = f32[4,8,16]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %b = f32[16,32]{1,0} parameter(2)
  %x = f32[8,16]{1,0} fusion(%stack, %i), kind=kLoop, calls=%layer, metadata={op_name="Transformer/attention/tanh"}
  %back = f32[4,8,16]{2,1,0} fusion(%stack, %x, %i), kind=kLoop, calls=%put
  %near = f32[16,32]{1,0:S(1)} copy(%b)
  %y = f32[8,32]{1,0} fusion(%x, %near), kind=kOutput, calls=%product, metadata={op_name="Transformer/ffw/dot"}
  ROOT %sum = f32[8,32]{1,0} all-reduce(%y), replica_groups={{0,1}}, to_apply=%add
}
"""
ROW, WEIGHTS, OUT = 8 * 16 * 4, 16 * 32 * 4, 8 * 32 * 4


def test_of_a_slice_only_the_slice_moves_and_on_the_chip_nothing():
    """The layer read and written; the update read and written; the weights copied from memory; the product."""
    expected = (ROW + 4 + ROW) + (ROW + 4 + ROW) + WEIGHTS + (ROW + OUT) + 2 * OUT
    assert traffic_bytes(parse(TEXT)) == expected


def test_a_slice_in_a_fusion_in_a_fusion_is_a_slice():
    """As the TPU compiler writes the product of a layer whose weights lie in a stack of all layers."""
    nested = """%outer (stack: f32[4,8,16], i: s32[]) -> f32[8,16] {
  %i = s32[] parameter(1)
  %stack = f32[4,8,16]{2,1,0} parameter(0)
  %same = f32[4,8,16]{2,1,0} bitcast(%stack)
  ROOT %inner = f32[8,16]{1,0} fusion(%same, %i), kind=kLoop, calls=%layer
}

ENTRY"""
    text = TEXT.replace("ENTRY", nested).replace("kind=kLoop, calls=%layer, metadata", "kind=kOutput, calls=%outer, metadata")
    assert text.count("calls=%outer") == 1 and traffic_bytes(parse(text)) == traffic_bytes(parse(TEXT))


def test_what_is_begun_is_read_once_and_written_once():
    start = "%begun = (f32[16,32]{1,0:S(1)}, f32[16,32]{1,0}, u32[]{:S(2)}) copy-start(%b)"
    start += "\n  %near = f32[16,32]{1,0:S(1)} copy-done(%begun)"
    text = TEXT.replace("%near = f32[16,32]{1,0:S(1)} copy(%b)", start)
    assert text != TEXT and traffic_bytes(parse(text)) == traffic_bytes(parse(TEXT))


def test_a_fused_product_has_its_flops():
    program = parse(TEXT)
    main = program.computations["main"]
    assert product_flops(program, main.instructions["y"], main) == 2 * 8 * 16 * 32
    assert product_flops(program, main.instructions["x"], main) == 0


CALLS = """HloModule gpu

ENTRY %main (a: bf16[8,16], b: bf16[16,32], q: bf16[2,4,64,128]) -> bf16[8,32] {
  %a = bf16[8,16]{1,0} parameter(0)
  %b = bf16[16,32]{1,0} parameter(1)
  %q = bf16[2,4,64,128]{3,2,1,0} parameter(2)
  %gemm = (bf16[8,32]{1,0}, s8[1024]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  %fmha = (bf16[2,4,64,128]{3,2,1,0}, u8[0]{0}) custom-call(%q, %q, %q), custom_call_target="__cudnn$fmhaSoftmax", backend_config={"cudnn_fmha_backend_config":{"intermediate_tensor_shape":{"element_type":"BF16","dimensions":["2","4","64","32"],"tuple_shapes":[]},"mask_type":"CAUSAL"}}
  %back = (bf16[2,4,64,128]{3,2,1,0}, u8[0]{0}) custom-call(%q, %q, %q), custom_call_target="__cudnn$fmhaSoftmaxBackward", backend_config={"cudnn_fmha_backend_config":{"intermediate_tensor_shape":{"element_type":"BF16","dimensions":["2","4","64","32"]},"mask_type":"NO_MASK"}}
  ROOT %out = bf16[8,32]{1,0} get-tuple-element(%gemm), index=0
}
"""


@pytest.mark.parametrize(
    ("name", "flops"),
    [("gemm", 2 * 8 * 16 * 32), ("fmha", 0.5 * 2 * 2 * 2 * 4 * 64 * 32 * 128), ("back", 2 * 5 * 2 * 4 * 64 * 32 * 128)],
)
def test_a_librarys_products_have_their_flops(name, flops):
    program = parse(CALLS)
    main = program.computations["main"]
    assert product_flops(program, main.instructions[name], main) == flops
