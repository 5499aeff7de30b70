"""FLOPs of Pallas attention kernels in a compiled program, for which the compiler has no cycles.

A call of splash attention is read by its name and its operands; how many of its blocks hold a pair that is looked at comes
from the model's config. Forward: 2 products of T S N H, 2 FLOPs each; backward, unfused: 4 for keys and values, 3 for queries.
"""

import math

from jaxllm.models import ModelConfig, TransformerConfig
from jaxllm.models.kernels import BLOCK
from jaxllm.plan.hlo import Instruction, Program, array_shapes
from jaxllm.recipe.device_config import main_stack, stacks

PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dkv": 4, "splash_mha_dq": 3, "splash_mqa_fwd": 2, "splash_mqa_dkv": 4}
"""Matrix products of a call, by what its name begins with; dkv that computes the gradient of queries, too, has one more."""


def kernel_flops(program: Program, model: ModelConfig) -> float:
    """FLOPs of one device in all its attention kernels, as often as they run."""
    total = 0.0
    for instruction, _, times in program.executed():
        if instruction.opcode == "custom-call" and "tpu_custom_call" in instruction.rest:
            total += times * call_flops(instruction, model)
    return total


def call_flops(instruction: Instruction, model: ModelConfig) -> float:
    """FLOPs of one call; 0 of a kernel that is not attention's."""
    products = next((count for name, count in PRODUCTS.items() if instruction.name.startswith(name)), None)
    floats = [shape for shape in _operand_shapes(instruction) if shape.startswith(("bf16", "f32")) and shape.count(",") >= 2]
    if products is None or len(floats) < 2:
        return 0.0
    queries, keys = (_sizes(shape) for shape in floats[:2])
    share = visible_share(stack_of(instruction.op_name, model), keys[-2])
    return 2.0 * products * math.prod(queries) * keys[-2] * share


def visible_share(config: TransformerConfig, length: int) -> float:
    """Share of pairs of query and key in blocks that a kernel computes, on average over layers, of `length` tokens."""
    block = min(BLOCK, length)
    full = (length + block) / (2 * length) if config.causal else 1.0
    if config.window is None:
        return full
    reach = config.window if config.causal else 2 * config.window
    windowed = min(full, (reach + block) / length)
    seeing_all = len(config.full_attention_layers) / config.num_layers
    return seeing_all * full + (1 - seeing_all) * windowed


def stack_of(op_name: str, model: ModelConfig) -> TransformerConfig:
    """Which of a model's stacks of blocks an operation belongs to."""
    return stacks(model)["encoder"] if "encoder" in op_name and "encoder" in stacks(model) else main_stack(model)


def _operand_shapes(instruction: Instruction) -> list[str]:
    said = instruction.attribute(r"operand_layout_constraints=\{((?:[^{}]|\{[^{}]*\})*)\}")
    return array_shapes(said or "")


def _sizes(shape: str) -> list[int]:
    return [int(size) for size in shape[shape.index("[") + 1 : -1].split(",")]
