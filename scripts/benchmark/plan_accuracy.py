"""What `jaxllm plan` predicts of a train step against what it takes on this machine's devices: memory and time.

python scripts/benchmark/plan_accuracy.py
"""

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from record import spread, write_named_record

CASES = {
    "shakespeare_char": ["configs/shakespeare_char.py", "--model.vocab-size", "65"],
    "shakespeare_char, four times the rows": ["configs/shakespeare_char.py", "--model.vocab-size", "65", "--batch-size", "48"],
    "shakespeare_char, 384 wide, 256 tokens": [
        "configs/shakespeare_char.py", "--model.vocab-size", "65", "--model.embed-dim", "384", "--model.num-heads", "6",
        "--model.num-layers", "6", "--model.context-len", "256", "--data.seq-len", "256", "--batch-size", "16",
    ],
    "llama_tinystories": ["configs/llama_tinystories.py", "--model.vocab-size", "4096"],
    "llama_tinystories, remat": [
        "configs/llama_tinystories.py", "--model.vocab-size", "4096", "--model.remat", "block",
    ],
}  # fmt: skip
"""What is planned and run: a recipe and options. None needs its data."""
MEMORY_WITHIN, TIME_WITHIN = 0.10, 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=10, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", choices=CASES, help="only this one")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(json.loads(options.worker), options.steps, options.rounds)))
        return
    results: dict[str, Any] = {}
    for name in [options.case] if options.case else CASES:
        words = json.dumps(CASES[name])
        rest = ["--steps", str(options.steps), "--rounds", str(options.rounds)]
        command = [sys.executable, __file__, "--worker", words, *rest]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results[name] = row = json.loads(done.stdout.splitlines()[-1])
        off = "   ".join(f"{key} {value:+.1%}" for key, value in row.items() if key.endswith("_off"))
        print(f"{name:<40} {off}", flush=True)
    if options.case:
        return
    where = results[next(iter(results))].pop("environment")
    for row in results.values():
        row.pop("environment", None)
    within = {
        "memory_within_10_percent": sum(abs(row["memory_off"]) <= MEMORY_WITHIN for row in results.values()),
        "time_within_25_percent": sum(abs(row["time_off"]) <= TIME_WITHIN for row in results.values()),
        "cases": len(results),
    }
    notes = (
        "Each case in its own process. Predicted: jaxllm plan for this machine's devices. Measured: the best of several rounds "
        "of steps with one batch, as the rates behind the prediction are the best seen. Memory by the allocator on an "
        "accelerator, on a CPU by how much the process grew at most while it held a state and made steps. `off` is prediction "
        "over measurement, less 1; cpu_time is that of the process over its devices, which other work does not change."
    )
    print(write_named_record("plan_accuracy", "train_steps", {"cases": CASES}, {**within, "by_case": results}, notes, where))


def measure(words: list[str], steps: int, rounds: int) -> dict[str, Any]:
    """Plans one case, then runs it."""
    import jax

    from jaxllm.cli.overrides import override
    from jaxllm.hardware import environment, set_up
    from jaxllm.plan import make_plan
    from jaxllm.plan.compile import model_sizes
    from jaxllm.recipe import find_recipe
    from jaxllm.recipe.program import Program
    from jaxllm.recipe.resolve import resolved
    from jaxllm.sharding import make_mesh, use_mesh
    from jaxllm.training import init_state

    set_up()
    recipe = override(find_recipe(words[0]), words[1:])
    plan = make_plan(recipe)
    program = Program(resolved(recipe, model_sizes(recipe), recipe.steps), make_mesh(recipe.mesh, recipe.batch_size))
    step = program.compile_step()

    def begun():
        batch = {
            name: jax.device_put(jax.numpy.ones(leaf.shape, leaf.dtype), leaf.sharding)
            for name, leaf in program.abstract_batch.items()
        }
        state = init_state(program.model, program.optimizer[0], program.mesh, program.key, program.abstract)
        return jax.block_until_ready(step(state, batch))[0], batch

    with use_mesh(program.mesh):
        begun()  # what only the first step needs, such as threads and pages of code, is none of the prediction's
        before = start_watching()
        state, batch = begun()
        start_watching()
        times, cpu_times = [], []
        for _ in range(rounds):
            start, cpu_start = time.perf_counter(), time.process_time()
            for _ in range(steps):
                state, metrics = step(state, batch)
            jax.block_until_ready(metrics)
            times.append((time.perf_counter() - start) / steps)
            cpu_times.append((time.process_time() - cpu_start) / steps / plan.devices)
    measured, seconds = peak_bytes(before), min(times)
    assert plan.seconds is not None
    on_cpu = jax.devices()[0].platform == "cpu"
    predicted = plan.memory.peak * (plan.devices if on_cpu else 1)
    return {
        "predicted_memory_mb": predicted / 1e6,
        "measured_memory_mb": measured / 1e6,
        "memory_off": predicted / measured - 1,
        "predicted_step_ms": 1e3 * plan.seconds.step,
        "measured_step_ms": 1e3 * seconds,
        "measured_step_ms_rounds": spread([1e3 * value for value in times]),
        "time_off": plan.seconds.step / seconds - 1,
        **({"cpu_time_ms": 1e3 * min(cpu_times), "cpu_time_off": plan.seconds.step / min(cpu_times) - 1} if on_cpu else {}),
        "environment": environment(),
    }


def start_watching() -> int:
    """Gives memory that is free back to the system, forgets earlier peaks, and says what the process holds now."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak_bytes(before: int) -> int:
    """The most that one device held, or that a CPU process grew by."""
    import jax

    stats = jax.devices()[0].memory_stats()
    return status("VmHWM") - before if stats is None else stats["peak_bytes_in_use"]


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


if __name__ == "__main__":
    main()
