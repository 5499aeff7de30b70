"""From a recipe to its plan: compile the program that would run, for devices that need not be here, and read it."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from jaxllm.data import Data, ImageData, ImageDataConfig, TaskData, TaskDataConfig, open_data, open_images, open_task_data
from jaxllm.hardware import device_kind, peak_flops
from jaxllm.models import ModelConfig, TransformerConfig, VisionConfig, num_params
from jaxllm.plan.collectives import collectives
from jaxllm.plan.estimate import INTERCONNECTS, cycles_by_part, network_seconds, seconds_by_part, tpu_step_time
from jaxllm.plan.here import here_step_time
from jaxllm.plan.hlo import Program as HloProgram
from jaxllm.plan.hlo import parse
from jaxllm.plan.kernels import kernel_flops
from jaxllm.plan.memory import compiled_memory, refused_memory, usable_bytes
from jaxllm.plan.plan import Plan, where
from jaxllm.plan.rates import measured_rates
from jaxllm.plan.slices import SLOW_NETWORK, slice_shape
from jaxllm.plan.topology import topology_devices, uncached
from jaxllm.plan.traffic import traffic_bytes
from jaxllm.plan.work import Phase, Work, work_of
from jaxllm.recipe import Recipe
from jaxllm.recipe.device_config import main_stack
from jaxllm.recipe.pretrained import described, pretrained_tokenizer
from jaxllm.recipe.program import Program
from jaxllm.recipe.resolve import FromData, from_data, resolved, with_text
from jaxllm.sharding import MeshError, make_mesh, mesh_sizes, use_all

HERE = "here"
"""In place of a topology: this machine's own devices."""


def make_plan(recipe: Recipe, topology: str = HERE, slices: int = 1, phase: Phase = "train", length: int | None = None) -> Plan:
    """Compiles a recipe's step for a TPU slice, or with "here" for this machine's devices. One that does not fit gets a plan,
    too: of its memory, without times.

    Args:
      phase: training, reading prompts (`prefill`), or writing one token of each row (`decode`).
      length: of prompts, or of the cache; by default the recipe's data.seq_len.

    Raises:
      ValueError: a slice that does not exist, a mesh that does not fit it, a model of unknown size.
    """
    devices = plan_devices(topology, slices)
    recipe = known_recipe(recipe)
    program = Program(recipe, _mesh(recipe, devices, topology, slices))
    work = work_of(program, phase, length)
    start = time.perf_counter()
    lowered = work.lower()
    middle = time.perf_counter()
    compiled, refused = None, None
    try:
        with contextlib.nullcontext() if topology == HERE else uncached():
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        refused = refused_memory(error, usable_bytes(devices[0]), **work.bytes)
        if refused is None:
            raise
    seconds = {"lower_seconds": middle - start, "compile_seconds": time.perf_counter() - middle}
    known = _known(program, work, topology, slices) | seconds
    return Plan(**known, **_figures(program, work, compiled, slices)) if refused is None else _refused_plan(known, refused)


def plan_devices(topology: str, slices: int = 1) -> Sequence[Any]:
    """The devices of a slice, or this machine's own."""
    if topology == HERE and slices != 1:
        raise ValueError(f"slices are those of a topology: got slices={slices} and none; name one, as in --topology v5e:4x4")
    return list(jax.devices()) if topology == HERE else list(topology_devices(topology, slices))


def known_recipe(recipe: Recipe) -> Recipe:
    """The recipe with what it leaves to a pretrained model, to the data and to its length."""
    recipe = described(recipe)
    tokenizer = pretrained_tokenizer(recipe)
    recipe = resolved(recipe, model_sizes(recipe), recipe.steps)
    return recipe if tokenizer is None else with_text(recipe, tokenizer)


def model_sizes(recipe: Recipe) -> FromData:
    """Of vocabulary or labels: the config's, or where it leaves them to the data, the data's."""
    model = recipe.model_config
    if (unknown := _unknown(model)) is None:
        return FromData.of(model)
    try:
        return from_data(recipe, _open(recipe))
    except (FileNotFoundError, ValueError) as error:
        name, value = unknown
        give = f": give it, as in --{name.replace('_', '-')} {value}" if recipe.pretrained is None else ""
        raise ValueError(f"{name} must be known to plan without the data{give} (the data was looked for: {error})") from None


def _unknown(model: ModelConfig) -> tuple[str, int] | None:
    """What a model's config leaves to its data, and what it may be."""
    if isinstance(model, VisionConfig):
        return ("model.num_labels", 10) if model.num_labels is None else None
    if main_stack(model).vocab_size is None:
        return "model.vocab_size", 32000
    head = model.head if isinstance(model, TransformerConfig) else None
    awaits = head is not None and head.kind in ("sequence", "tokens") and head.num_labels is None
    return ("model.head.num_labels", 2) if awaits else None


def _open(recipe: Recipe) -> Data | ImageData | TaskData:
    if isinstance(recipe.data, ImageDataConfig):
        return open_images(recipe.data, seed=recipe.seed)
    if isinstance(recipe.data, TaskDataConfig):
        return open_task_data(recipe.data, seed=recipe.seed, tokenizer=pretrained_tokenizer(recipe))
    return open_data(recipe.data, seed=recipe.seed)


def _mesh(recipe: Recipe, devices: Sequence[Any], topology: str, slices: int) -> Mesh:
    """Of all chips of a slice; of the devices here some may be left over, as where it is trained."""
    config, rows = recipe.mesh, recipe.batch_size // recipe.accumulate
    used = math.prod(mesh_sizes(config, len(devices), rows).values())
    if used == len(devices) or topology == HERE:
        return make_mesh(config, rows, devices=devices)
    hints = []
    if slices > 1 and config.replica * config.stage == 1:
        config = dataclasses.replace(config, replica=slices)
        hints.append(f"set --mesh.replica {slices} for a copy of the model on each slice")
    hints.append(use_all(config, len(devices), recipe.batch_size, recipe.accumulate))
    told = f"the mesh must use all {len(devices)} devices of {where(topology, slices)}: got {used}"
    raise MeshError(f"{told}; {' and '.join(filter(None, hints))}")


def _known(program: Program, work: Work, topology: str, slices: int) -> dict[str, Any]:
    """What is known before anything is compiled."""
    device = program.mesh.devices.flat[0]
    return {
        "recipe": program.recipe.name,
        "phase": work.phase,
        "topology": topology,
        "slices": slices,
        "device": device.device_kind,
        "devices": program.mesh.size,
        "mesh": {axis: size for axis, size in program.mesh.shape.items() if size > 1},
        "parameters": num_params(program.abstract.whole),
        "tokens_per_step": work.tokens,
        "unit": "images" if isinstance(program.recipe.model_config, VisionConfig) else "tokens",
        "flops_per_step": work.flops,
    }


def _refused_plan(known: dict[str, Any], memory: Any) -> Plan:
    nothing: dict[str, Any] = {"collectives": [], "collective_seconds": [], "cycles": {}, "shares": {}, "seconds": None}
    nothing |= {
        "attention_kernel": None,
        "peak_flops": None,
        "bandwidth": None,
        "traffic_bytes": 0,
        "kernel_flops": 0.0,
        "warnings": (),
    }
    return Plan(**known, **nothing, memory=memory)


def _figures(program: Program, work: Work, compiled: Any, slices: int) -> dict[str, Any]:
    """What the compiled program says."""
    shape, device = dict(program.mesh.shape), program.mesh.devices.flat[0]
    text = compiled.as_text()
    hlo = parse(text)
    figures, link = device_kind(device.device_kind), INTERCONNECTS.get(device.device_kind)
    sent = collectives(hlo, shape, slices, 0.0 if link is None else SLOW_NETWORK / link.clock)
    cycles, traffic, kernels = cycles_by_part(hlo), traffic_bytes(hlo), kernel_flops(hlo, program.model.config)
    dtype, flops = program.recipe.model_config.compute_dtype, work.flops / program.mesh.size
    seconds, alone, shares, peak, bandwidth = None, [], {}, None, None
    if link is not None and figures is not None and cycles:
        # A TPU multiplies float32 by its bfloat16 units, at best as fast.
        peak, bandwidth = peak_flops(device.device_kind, dtype) or figures.bf16_flops or math.nan, figures.hbm_bandwidth
        inside = slice_shape(shape, slices)
        alone = [network_seconds(row.bytes, row, inside, link) for row in sent]
        parts = seconds_by_part(hlo, link, kernels, peak)
        given = {"flops": flops / peak, "compute": sum(parts.values()), "traffic": traffic / bandwidth}
        seconds, shares = tpu_step_time(sent, inside, link, **given), _shares(parts)
    elif device in jax.devices():
        rates = measured_rates(dtype)
        peak, bandwidth = rates.products, rates.bandwidth[-1][1]
        memory = compiled.memory_analysis()
        seconds, parts = here_step_time(hlo, rates, flops=flops, temporaries=memory.temp_size_in_bytes)
        shares = _shares(parts)
    return {
        "attention_kernel": "splash" if kernels else "cudnn" if "__cudnn$fmha" in text else "xla",
        "peak_flops": peak,
        "bandwidth": bandwidth,
        "shares": shares,
        "memory": compiled_memory(compiled, usable_bytes(device), **work.bytes),
        "collectives": sent,
        "collective_seconds": alone,
        "traffic_bytes": traffic,
        "kernel_flops": kernels,
        "cycles": cycles,
        "seconds": seconds,
        "warnings": tuple(_warnings(hlo)),
    }


def _shares(parts: dict[str, float]) -> dict[str, float]:
    total = sum(parts.values())
    return {part: value / total for part, value in parts.items()} if total else {}


def _warnings(hlo: HloProgram) -> list[str]:
    found = []
    if loops := hlo.unknown_loops():
        found.append(f"{len(loops)} loops of unknown length are counted as one turn ({', '.join(loops[:3])})")
    if choices := hlo.conditionals():
        found.append(f"of {choices} choices made while running the longest branch is counted")
    return found
