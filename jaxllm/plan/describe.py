"""A plan in words and in JSON."""

import dataclasses
import math
from typing import Any

from jaxllm.plan.memory import Memory, advice
from jaxllm.plan.plan import Plan, where


def as_json(plan: Plan, price: float | None = None) -> dict[str, Any]:
    """The plan's figures by the names that other programs read. Bytes are those of one chip.

    Args:
      price: dollars per chip and hour.
    """
    memory, seconds = plan.memory, plan.seconds
    return {
        "recipe": plan.recipe,
        "phase": plan.phase,
        "topology": plan.topology,
        "slices": plan.slices,
        "device": plan.device,
        "devices": plan.devices,
        "mesh": plan.mesh,
        "attention_kernel": plan.attention_kernel,
        "parameters": plan.parameters,
        "tokens_per_step": plan.tokens_per_step,
        "fits": memory.fits,
        "peak_bytes_per_chip": memory.peak,
        "capacity_bytes_per_chip": memory.capacity,
        "argument_bytes": memory.arguments,
        "temp_bytes": memory.temporaries,
        "parameter_bytes": memory.parameters,
        "gradient_bytes": memory.gradients,
        "optimizer_bytes": memory.optimizer,
        "cache_bytes": memory.cache,
        "activation_bytes": memory.activations,
        "advice": advice(memory) if memory.fits is False else [],
        "flops_per_step": plan.flops_per_step,
        "kernel_flops_per_chip": plan.kernel_flops,
        "traffic_bytes_per_chip": plan.traffic_bytes,
        "estimated_cycles": sum(plan.cycles.values()) or None,
        "estimated_cycles_by_part": plan.cycles,
        "estimated_share_by_part": plan.shares,
        "collective_bytes": sum(row.bytes for row in plan.collectives),
        "exposed_collective_bytes": sum(row.exposed_bytes for row in plan.collectives),
        "collectives": _collectives_json(plan),
        "estimated_seconds": None if seconds is None else dataclasses.asdict(seconds),
        "estimated_step_seconds": None if seconds is None else seconds.step,
        "estimated_bound": None if seconds is None else seconds.bound,
        "estimated_tokens_per_second": plan.tokens_per_second,
        "estimated_mfu": plan.mfu,
        "estimated_dollars_per_billion_tokens": None if price is None else plan.dollars_per_billion_tokens(price),
        "lower_seconds": plan.lower_seconds,
        "compile_seconds": plan.compile_seconds,
        "warnings": list(plan.warnings),
    }


def _collectives_json(plan: Plan) -> list[dict[str, Any]]:
    alone = plan.collective_seconds or [None] * len(plan.collectives)
    rows = zip(plan.collectives, alone, strict=True)
    return [dataclasses.asdict(row) | {"axes": list(row.axes), "estimated_seconds_alone": seconds} for row, seconds in rows]


def describe(plan: Plan, price: float | None = None) -> str:
    """The plan for a terminal."""
    lines = [
        title(plan) + ("" if plan.attention_kernel is None else f", attention by {plan.attention_kernel}"),
        f"{plan.parameters:,} parameters, {plan.tokens_per_step:,} {plan.unit} a step, {plan.flops_per_step:.3g} FLOPs, "
        f"compiled in {plan.lower_seconds + plan.compile_seconds:.0f} s",
        "",
        *memory_lines(plan.memory),
        "",
        *_collective_lines(plan),
        *_time_lines(plan, price),
        *(f"note: {warning}" for warning in plan.warnings),
    ]
    return "\n".join(lines)


def title(plan: Plan) -> str:
    """What was planned, in a line."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items()) or "one device"
    what = "" if plan.phase == "train" else f", {plan.phase}"
    return f"{plan.recipe}{what} on {where(plan.topology, plan.slices)}: {plan.devices} x {plan.device}, mesh {mesh}"


def memory_rows(memory: Memory) -> list[tuple[str, int]]:
    """What the peak is made of."""
    rows = [
        ("parameters", memory.parameters),
        ("optimizer state", memory.optimizer),
        ("gradients", memory.gradients),
        ("keys and values", memory.cache),
        ("activations and the rest", memory.activations),
    ]
    return [row for row in rows if row[1]]


def memory_lines(memory: Memory) -> list[str]:
    lines = ["memory of a device, by the compiler"]
    lines += [f"  {name:<28}{_gigabytes(size)}" for name, size in memory_rows(memory)]
    lines.append(f"  {'peak':<28}{_gigabytes(memory.peak)}")
    if memory.capacity is not None:
        lines[-1] += f" of {_gigabytes(memory.capacity).strip()}: {'fits' if memory.fits else 'DOES NOT FIT'}"
        if not memory.fits:
            lines += [f"  {line}" for line in advice(memory)]
    return lines


def _collective_lines(plan: Plan) -> list[str]:
    if not plan.collectives:
        return []
    lines = ["sent by a device in a step"]
    times = plan.collective_seconds or [None] * len(plan.collectives)
    for row, seconds in zip(plan.collectives, times, strict=True):
        alone = "" if seconds is None else f"   {1e3 * seconds:8.1f} ms alone (estimate)"
        waits = f", {row.exposed_bytes / row.bytes:4.0%} waited for" if row.bytes else ""
        alone += "   between slices" * row.between_slices
        lines.append(f"  {row.kind:<20}{' '.join(row.axes):<16}{row.count:>7} x {_gigabytes(row.bytes)}{waits}{alone}")
    return [*lines, ""]


def _time_lines(plan: Plan, price: float | None) -> list[str]:
    if plan.seconds is None:
        fits = plan.memory.fits is not False
        return ["no estimate of time: " + ("there are no figures of this device" if fits else "it does not fit")]
    seconds, source = plan.seconds, "the compiler's cycles; kernels by their FLOPs" if plan.cycles else "from measured rates"
    lines = [f"computing by part (estimate: {source})"]
    lines += [f"  {part:<28}{share:6.1%}" for part, share in plan.shares.items()] + [""]
    share = "" if plan.mfu is None or math.isnan(plan.mfu) else f", MFU {plan.mfu:.1%}"
    lines += [
        f"step {seconds.step:.4g} s (estimate; {seconds.bound_words}): {plan.tokens_per_second:,.0f} {plan.unit}/s{share}",
        f"  FLOPs at peak {seconds.flops:.4g} s, computing {seconds.compute:.4g} s, memory traffic {seconds.traffic:.4g} s, "
        f"collectives beside it {seconds.hidden:.4g} s, waited for {seconds.exposed:.4g} s",
    ]
    if price is not None and (cost := plan.dollars_per_billion_tokens(price)) is not None:
        lines.append(f"  {cost:,.2f} dollars per billion {plan.unit} at {price} a chip and hour (estimate)")
    return lines


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:8.3f} GB"
