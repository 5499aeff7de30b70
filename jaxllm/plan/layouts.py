"""Every way a recipe could be laid out over so many devices: mesh shapes, remat policies, and rows held at once."""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from jaxllm.data import ImageDataConfig
from jaxllm.models.config import Remat
from jaxllm.recipe import Recipe
from jaxllm.recipe.device_config import main_stack, replace_stacks, stacks
from jaxllm.sharding import AxisSize, MeshConfig, MeshError, check_divides

ROWS = (1, 2, 4, 8, 16, 32)
"""Sequences that a device holds at once."""
MOST_TENSOR = 16
"""Largest `tensor` that is tried: beyond, a device has too little of each product."""
REMAT: tuple[Remat, ...] = ("none", "minimal", "dots", "block", "offload")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way to run a recipe."""

    mesh: dict[str, int]
    """Sizes of all axes."""
    remat: Remat
    rows: int
    """Sequences that a device, or the devices that share a sequence, hold at once."""
    batch_size: int
    accumulate: int

    def applied(self, recipe: Recipe) -> Recipe:
        """The recipe run in this way."""
        model = replace_stacks(recipe.model_config, lambda stack: dataclasses.replace(stack, remat=self.remat))
        mesh = dataclasses.replace(recipe.mesh, **self.mesh)
        return dataclasses.replace(recipe, model=model, mesh=mesh, batch_size=self.batch_size, accumulate=self.accumulate)

    def overrides(self, recipe: Recipe, *, pretrained: bool = False) -> str:
        """The options that make the recipe run in this way; what it already does is left out, but axes that split never.

        Args:
          pretrained: whether it leaves its model's config to a pretrained one's, with options for all stacks at once.
        """
        words = [f"--mesh.{axis} {size}" for axis, size in self.mesh.items() if size > 1 or getattr(recipe.mesh, axis) != size]
        changed = [field for field, stack in stacks(recipe.model_config).items() if stack.remat != self.remat]
        for field in [""] * bool(changed) if pretrained else changed:
            words.append(f"--{f'model.{field}'.rstrip('.')}.remat {self.remat}")
        words += [f"--batch-size {self.batch_size}"] * (self.batch_size != recipe.batch_size)
        words += [f"--accumulate {self.accumulate}"] * (self.accumulate != recipe.accumulate)
        return " ".join(words)


def layouts(recipe: Recipe, devices: int, slices: int) -> Iterator[Layout]:
    """All that divide evenly. The recipe's batch size stays where the rows held at once divide it; otherwise it becomes these
    rows."""
    for sizes in meshes(recipe, devices // slices):
        groups = slices * sizes["data"] * sizes["fsdp"] * sizes["expert"]
        for rows, remat in itertools.product(ROWS, REMAT):
            at_once = rows * groups
            whole = recipe.batch_size % at_once == 0
            yield Layout(
                mesh={"replica": slices, "stage": 1, **sizes},
                remat=remat,
                rows=rows,
                batch_size=recipe.batch_size if whole else at_once,
                accumulate=recipe.batch_size // at_once if whole else 1,
            )


def meshes(recipe: Recipe, devices: int) -> Iterator[dict[str, int]]:
    """Sizes of data, fsdp, expert, context and tensor whose product is `devices` and that the model allows."""
    config = main_stack(recipe.model_config)
    seq_len = getattr(recipe.data, "seq_len", 1)
    parts = [size for size in range(1, devices + 1) if devices % size == 0]
    experts = [size for size in parts if config.experts is not None and config.experts.num_experts % size == 0] or [1]
    contexts = [size for size in parts if config.causal and (size == 1 or seq_len % (2 * size) == 0)] or [1]
    for tensor, context, expert in itertools.product(parts, contexts, experts):
        if tensor > MOST_TENSOR or devices % (tensor * context * expert):
            continue
        left = devices // (tensor * context * expert)
        for fsdp in (size for size in parts if left % size == 0):
            sizes = {"data": left // fsdp, "fsdp": fsdp, "expert": expert, "context": context, "tensor": tensor}
            if divides(sizes, recipe):
                yield sizes


def divides(sizes: dict[str, int], recipe: Recipe) -> bool:
    """Whether the model and its sequences can be split evenly."""
    time = () if isinstance(recipe.data, ImageDataConfig) else (AxisSize("time", "data.seq_len", recipe.data.seq_len),)
    try:
        check_divides(dataclasses.replace(MeshConfig(), **sizes), (*recipe.model_config.axis_sizes(), *time))
    except MeshError:
        return False
    return True
