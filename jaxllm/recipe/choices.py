"""What a run leaves to its device and its mesh, in words."""

from jaxllm.data import TaskDataConfig
from jaxllm.finetune import learning_rate
from jaxllm.models import TransformerConfig, VisionConfig, kernel_takes
from jaxllm.recipe.device_config import stacks
from jaxllm.recipe.program import Program
from jaxllm.sharding import balanced_order, left_whole, use_mesh


def describe_choices(program: Program) -> list[str]:
    """One line for who computes attention and how tokens travel to their experts, and one for each dimension that the mesh
    cannot split and each stack whose layers do not work in stages."""
    config = program.model.config
    recipe = program.recipe
    length = config.num_tokens if isinstance(config, VisionConfig) else recipe.objective.tokens(recipe.data)
    if isinstance(recipe.data, TaskDataConfig):
        length = recipe.data.seq_len
    with use_mesh(program.mesh):
        told = {field: _stack_choices(stack, length, program) for field, stack in stacks(config).items()}
    lines = [f"{field}: {words}" if len(told) > 1 else words for field, words in told.items()]
    unstaged = [_unstaged(field, stack, program.mesh.shape["stage"]) for field, stack in stacks(config).items()]
    if recipe.pretrained is not None:
        after = f", going on with {recipe.adapter}" if recipe.adapter is not None else ""
        given, usual = recipe.optimizer.learning_rate, learning_rate(recipe.method)
        assert given is not None  # the recipe is resolved
        far = recipe.optimizer.name == "adamw" and not usual / 5 < given < usual * 5
        hint = f" (usual for this method: {usual:g})" if far else ""
        lines.append(f"{type(recipe.method).__name__} of {recipe.pretrained}{after}, learning rate {given:g}{hint}")
    return lines + left_whole(program.mesh, config.axis_sizes()) + [line for line in unstaged if line is not None]


def _unstaged(field: str, stack: TransformerConfig, stages: int) -> str | None:
    """A sentence about layers that are kept in the mesh's stages and do not work in them."""
    why = "looks at an encoder" if stack.cross_attention else "has layers of several sizes" if stack.pruned_heads else None
    if stages == 1 or why is None:
        return None
    name = f"model.{field}".rstrip(".")
    return (
        f"{name} {why}, so its layers do not pass batches through mesh.stage={stages}: each device gathers and computes all of "
        "them; use mesh.fsdp in place of mesh.stage"
    )


def _stack_choices(stack: TransformerConfig, length: int, program: Program) -> str:
    device = program.mesh.devices.flat[0].device_kind
    kernel = stack.attention_kernel or "xla"
    order = balanced_order(length) if stack.causal else None
    if kernel != "xla" and not kernel_takes(stack, length, order):
        words = [f"attention by xla ({kernel} does not take {length} tokens on this mesh)"]
    else:
        words = [f"attention by {kernel}"]
    if stack.matmul_dtype is not None:
        words.append(f"projections in {stack.matmul_dtype}")
    if stack.experts is not None and stack.experts.dispatch == "sorted":
        spread = program.mesh.shape["expert"] > 1
        words.append(f"experts by {stack.experts.exchange} exchange" if spread else "experts on each device")
    if stack.remat != "none":
        words.append(f"remat {stack.remat}")
    return f"{', '.join(words)} ({device})"
