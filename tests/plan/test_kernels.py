"""FLOPs of attention kernels, against the same counted pair by pair."""
# ruff: noqa: E501

import numpy as np
import pytest

from jaxllm.models import EncoderDecoderConfig, HeadConfig, TransformerConfig
from jaxllm.plan.hlo import parse
from jaxllm.plan.kernels import kernel_flops, visible_share

CALL = (
    '  %splash_mha_{name}_segmented.{n} = {out} custom-call(%a, %b), custom_call_target="tpu_custom_call", '
    "operand_layout_constraints={{s8[1,4,4]{{2,1,0}}, s8[1,4,4]{{2,1,0}}, bf16[2,8,1024,64]{{3,2,1,0}}, bf16[2,4,1024,64]{{3,2,1,0}}, "
    'bf16[2,4,1024,64]{{3,2,1,0}}, s32[1024,128]{{1,0}}}}, metadata={{op_name="jit(step)/{where}/attention"}}\n'
)


def program(*names, where="Block"):
    calls = "".join(CALL.format(name=name, n=n, out="bf16[2,8,1024,64]{3,2,1,0}", where=where) for n, name in enumerate(names))
    return parse(f"HloModule kernels\n\nENTRY %main (x: f32[]) -> f32[] {{\n{calls}  ROOT %x = f32[] parameter(0)\n}}\n")


def config(**changes):
    return TransformerConfig(vocab_size=8, num_layers=4, embed_dim=512, num_heads=8, **changes)


PRODUCT = 2.0 * 2 * 8 * 1024 * 1024 * 64
"""FLOPs of one product of all pairs, in the call above."""


def test_a_backward_pass_has_seven_products_and_a_forward_pass_two():
    model = config(causal=False)
    assert kernel_flops(program("fwd"), model) == 2 * PRODUCT
    assert kernel_flops(program("fwd", "fwd", "dkv", "dq"), model) == (2 + 2 + 7) * PRODUCT
    assert kernel_flops(program("other"), model) == 0


@pytest.mark.parametrize(("window", "causal"), [(None, True), (None, False), (256, True), (256, False), (4096, True)])
def test_visible_pairs_are_those_of_blocks_that_hold_one(window, causal):
    """Counted over a grid of blocks; with a window the count is an average over where it begins in a block."""
    length, block = 4096, 512
    distance = np.arange(length)[:, None] - np.arange(length)[None]
    seen = np.abs(distance) < (window or length)
    seen &= (distance >= 0) | (not causal)
    blocks = seen.reshape(length // block, block, length // block, block).any(axis=(1, 3)).mean()
    assert visible_share(config(window=window, causal=causal), length) == pytest.approx(
        blocks, rel=0.35 if window == 256 else 0.01
    )


def test_layers_that_see_all_count_in_full():
    windowed, full = (visible_share(config(window=w), 8192) for w in (256, None))
    mixed = visible_share(config(window=256, full_attention_layers=(3,)), 8192)
    assert windowed < full / 4 and mixed == pytest.approx(0.75 * windowed + 0.25 * full)


def test_each_stack_counts_by_its_own_config():
    encoder = config(causal=False, head=HeadConfig(kind="none"))
    model = EncoderDecoderConfig(encoder=encoder, decoder=config(cross_attention=True))
    in_encoder, in_decoder = (kernel_flops(program("fwd", where=where), model) for where in ("encoder", "decoder"))
    assert in_encoder == 2 * PRODUCT and in_decoder == pytest.approx(2 * PRODUCT * 0.75)
