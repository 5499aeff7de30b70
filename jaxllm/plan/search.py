"""Which mesh, remat policy and rows a device are fastest? All are counted, the best few compiled."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from jaxllm.finetune import adapt, wrapped
from jaxllm.hardware import device_kind, peak_flops
from jaxllm.hardware.counted import counted
from jaxllm.models import abstract_params, attention_kernel, make_model, num_params, partition, train_flops_per_token
from jaxllm.plan.compile import HERE, known_recipe, make_plan, plan_devices
from jaxllm.plan.estimate import INTERCONNECTS
from jaxllm.plan.layouts import Layout, layouts
from jaxllm.plan.memory import usable_bytes
from jaxllm.plan.plan import Plan
from jaxllm.plan.rates import measured_rates
from jaxllm.plan.rough import Machine, Model, Rough, rough
from jaxllm.recipe import Recipe
from jaxllm.recipe.device_config import main_stack
from jaxllm.recipe.recipe import FromPretrained
from jaxllm.training import make_optimizer

ROOM = 1.15
"""Layouts whose counted memory is within this of a device's capacity are worth compiling: counting is rough."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A layout that was compiled."""

    layout: Layout
    overrides: str
    guess: Rough
    """What counting said, before."""
    plan: Plan | None
    """None where the step could not be built."""
    refused: str | None = None
    """Why not."""

    @property
    def speed(self) -> float:
        """Tokens a second, estimated; 0 where it does not fit."""
        if self.plan is None or self.plan.memory.fits is False:
            return 0.0
        return self.plan.tokens_per_second or self.guess.tokens_per_second


@dataclass(frozen=True, kw_only=True)
class Search:
    counted: int
    """Layouts that divide evenly."""
    too_large: int
    """Of them, those that are counted not to fit."""
    found: list[Found]
    """Those compiled, the fastest first."""


def search(
    recipe: Recipe, topology: str = HERE, slices: int = 1, compiled: int = 4, say: Callable[[str], None] = lambda line: None
) -> Search:
    """Looks for the fastest way to run a recipe's training on these devices.

    Args:
      compiled: layouts to compile, at least 1.
      say: told what was counted, and of each layout before and after it is compiled.

    Raises:
      ValueError: no layout divides the model evenly, or all are counted to be far too large.
    """
    if compiled < 1:
        raise ValueError(f"--compile must be at least 1: got {compiled}")
    devices = plan_devices(topology, slices)
    recipe, pretrained = known_recipe(recipe), isinstance(recipe.model, FromPretrained)
    config, model, machine = main_stack(recipe.model_config), _model(recipe), _machine(recipe, devices[0])
    rows = [(layout, rough(recipe, config, model, machine, layout)) for layout in layouts(recipe, len(devices), slices)]
    if not rows:
        raise ValueError(
            f"no mesh of {len(devices)} devices divides this model evenly: got "
            f"{', '.join(f'{field}={size}' for _, field, size in recipe.model_config.axis_sizes())}; choose other sizes"
        )
    fitting = [row for row in rows if machine.capacity is None or row[1].peak_bytes <= ROOM * machine.capacity]
    if not fitting:
        least = min(guess.peak_bytes for _, guess in rows)
        raise ValueError(
            f"no layout of {recipe.name} fits {len(devices)} devices of {(machine.capacity or 0) / 1e9:.1f} GB: the smallest "
            f"needs about {least / 1e9:.1f} GB a device (counted, not compiled); use a larger topology"
        )
    best = min(compiled, len(fitting))
    say(f"{counted(len(rows), 'layout')} counted, {len(fitting)} of them may fit; compiling the best {best}")

    def compile_layout(layout: Layout, guess: Rough) -> Found:
        overrides = layout.overrides(recipe, pretrained=pretrained)
        return _compile(recipe, topology, slices, layout, overrides, guess, say)

    found = compile_best(fitting, compiled, compile_layout)
    return Search(
        counted=len(rows),
        too_large=len(rows) - len(fitting),
        found=sorted(found, key=lambda row: (-row.speed, row.guess.step_seconds)),
    )


def compile_best(rows: list[tuple[Layout, Rough]], count: int, compile_layout: Callable[[Layout, Rough], Found]) -> list[Found]:
    """Compiles `count` of those that are counted to be fastest. As counting is rough, they are of several kinds: of each mesh
    at most two, and of each remat policy a fourth where there are others; and after one that does not fit, none that is counted
    to need as much."""
    found: list[Found] = []
    left = sorted(rows, key=lambda row: (-row[1].tokens_per_second, row[1].peak_bytes))
    while len(found) < count:
        left = [row for row in left if sum(row[0].mesh == other.layout.mesh for other in found) < 2]
        new = [row for row in left if sum(row[0].remat == other.layout.remat for other in found) < math.ceil(count / 4)]
        if not left:
            break
        layout, guess = (new or left)[0]
        found.append(compile_layout(layout, guess))
        does_not_fit = found[-1].plan is not None and found[-1].plan.memory.fits is False
        left = [row for row in left if row[0] != layout and not (does_not_fit and row[1].peak_bytes >= guess.peak_bytes)]
    return found


def _compile(
    recipe: Recipe, topology: str, slices: int, layout: Layout, overrides: str, guess: Rough, say: Callable[[str], None]
) -> Found:
    say(f"compiling {overrides}")
    plan, refused = None, None
    try:
        plan = make_plan(layout.applied(recipe), topology, slices)
    except (ValueError, NotImplementedError, jax.errors.JaxRuntimeError) as error:
        refused = str(error).splitlines()[0]
    say(f"  {refused if plan is None else _in_short(plan)}")
    return Found(layout=layout, overrides=overrides, guess=guess, plan=plan, refused=refused)


def _model(recipe: Recipe) -> Model:
    params, _ = abstract_params(adapt(make_model(recipe.model_config), recipe.method))
    learning = partition(params, recipe.method.learns)[0]
    optimizer, _ = make_optimizer(recipe.optimizer, recipe.steps, wrapped(recipe.method, recipe.steps))
    state = jax.tree.leaves(jax.eval_shape(optimizer.init, learning))
    return Model(
        parameters=num_params(params),
        learning=num_params(learning),
        optimizer_bytes=sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in state),
        flops_per_token=train_flops_per_token(recipe.model_config, getattr(recipe.data, "seq_len", 1)),
    )


def _machine(recipe: Recipe, device: Any) -> Machine:
    config = main_stack(recipe.model_config)
    link = INTERCONNECTS.get(device.device_kind)
    dtype = recipe.model_config.compute_dtype
    rates = measured_rates(dtype) if link is None else None
    figures = device_kind(device.device_kind)
    memory = rates.bandwidth[-1][1] if rates is not None else figures.hbm_bandwidth if figures is not None else math.inf
    return Machine(
        peak=rates.products if rates is not None else peak_flops(device.device_kind, dtype) or math.inf,
        network=link.bandwidth if link is not None else rates.sum_bandwidth if rates is not None else math.inf,
        memory=memory,
        capacity=usable_bytes(device),
        kernel=attention_kernel(config, device),
    )


def _in_short(plan: Plan) -> str:
    """A compiled layout in a line."""
    memory, seconds = plan.memory, plan.seconds
    of = "" if memory.capacity is None else f" of {memory.capacity / 1e9:.2f}"
    words = f"peak {memory.peak / 1e9:.2f}{of} GB{', does not fit' * (memory.fits is False)}"
    if seconds is not None:
        words += f", step {seconds.step:.4g} s (estimate)"
    return f"{words}, compiled in {plan.lower_seconds + plan.compile_seconds:.0f} s"


def describe_search(result: Search, price: float | None = None) -> str:
    """The table for a terminal, the fastest first.

    Args:
      price: dollars per chip and hour, for a column of what a billion tokens cost.
    """
    dollars = "" if price is None else f" {'$ a billion':>12}"
    lines = [
        f"{counted(result.counted, 'layout')}, {result.too_large} of them counted too large; {len(result.found)} compiled "
        "(times are estimates)",
        f"{'':>3} {'tokens/s':>12} {'step, s':>9} {'MFU':>6}{dollars} {'peak, GB':>9}  options",
    ]
    for place, row in enumerate(result.found, 1):
        if row.plan is None:
            lines.append(f"{place:>3} {row.refused}: {row.overrides}")
        else:
            lines.append(f"{place:>3} {_columns(row, row.plan, price)}  {row.overrides}")
    return "\n".join(lines)


def _columns(row: Found, plan: Plan, price: float | None) -> str:
    seconds, memory = plan.seconds, plan.memory
    peak = f"{memory.peak / 1e9:>9.2f}"
    if seconds is None:
        words = "does not fit" if memory.fits is False else "no estimate"
        return f"{words:>{29 if price is None else 42}} {peak}"
    cost = "" if price is None else f" {plan.dollars_per_billion_tokens(price):>12,.2f}"
    fits = "" if memory.fits is not False else " does not fit"
    return f"{row.speed:>12,.0f} {seconds.step:>9.4g} {plan.mfu or 0.0:>6.1%}{cost} {peak}{fits}"
