"""What `jaxllm plan` predicts of a train step against what it takes on this machine's devices: memory and time.

python scripts/benchmark/plan_accuracy.py      # about 8 minutes on two cores; times mean something on a quiet machine only
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

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
    "bert_mini": ["configs/bert_mini.py", "--model.vocab-size", "8192"],
    "transformer_multi30k": [
        "configs/transformer_multi30k_de_en.py", "--model.encoder.vocab-size", "8000", "--model.decoder.vocab-size", "8000",
    ],
    "vit_cifar10": ["configs/vit_cifar10.py", "--model.num-labels", "10"],
}  # fmt: skip
"""What is planned and run: a recipe and options. None needs its data."""
MEMORY_WITHIN, TIME_WITHIN = 0.10, 0.25
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "16384"}
"""Makes glibc give arrays back to the system as soon as they are freed. Otherwise it keeps tens of megabytes of an earlier
step, and how much a process grows says little of what the next one needs."""


class Ready(NamedTuple):
    """A case, compiled."""

    step: Any
    begin: Any
    """Makes a state and a batch."""
    recipe: Any
    mesh: Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=10, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", choices=CASES, help="only this one; nothing is recorded")
    parser.add_argument("--worker", choices=["memory", "time"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        ready = compiled(CASES[options.case])
        found = measured_memory(ready) if options.worker == "memory" else measured_time(ready, options.steps, options.rounds)
        print(json.dumps(found))
        return
    results: dict[str, Any] = {}
    for name in [options.case] if options.case else CASES:
        results[name] = row = compare(name, options.steps, options.rounds)
        off = "   ".join(f"{key} {value:+.1%}" for key, value in row.items() if key.endswith("_off"))
        print(f"{name:<40} {off}", flush=True)
    if options.case:
        return
    where = [row.pop("environment") for row in results.values()][0]
    within = {
        "memory_within_10_percent": sum(abs(row["memory_off"]) <= MEMORY_WITHIN for row in results.values()),
        "time_within_25_percent": sum(abs(row["time_off"]) <= TIME_WITHIN for row in results.values()),
        "cases": len(results),
    }
    notes = (
        "Predicted: jaxllm plan for this machine's devices. Measured: each case in two processes, one for memory and one for "
        "time. Time: the best of several rounds of steps with one batch, as the rates behind the prediction are the best seen. "
        "Memory by the allocator on an accelerator; on a CPU by how much the process, which had made a step and freed all, "
        "grew at most while it held a state again and made steps one by one, freed memory going back to the system at once. "
        "`off` is prediction over measurement, less 1; cpu_time is that of the process over its devices, which other work "
        "changes less: caches and the bandwidth of memory are shared."
    )
    print(write_named_record("plan_accuracy", "train_steps", {"cases": CASES}, {**within, "by_case": results}, notes, where))


def compare(name: str, steps: int, rounds: int) -> dict[str, Any]:
    """Predictions of a case beside its measurements."""
    rest = ["--case", name, "--steps", str(steps), "--rounds", str(rounds)]
    found: dict[str, Any] = {}
    for worker, surroundings in (("memory", GIVE_BACK), ("time", {})):
        command = [sys.executable, __file__, "--worker", worker, *rest]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | surroundings)
        found |= json.loads(done.stdout.splitlines()[-1])
    memory_off = found["predicted_memory_mb"] / found["measured_memory_mb"] - 1
    time_off = found["predicted_step_ms"] / found["measured_step_ms"] - 1
    on_cpu = "cpu_time_ms" in found
    cpu = {"cpu_time_off": found["predicted_step_ms"] / found["cpu_time_ms"] - 1} if on_cpu else {}
    return {**found, "memory_off": memory_off, "time_off": time_off, **cpu}


def compiled(words: list[str]) -> Ready:
    import jax

    from jaxllm.cli.overrides import override
    from jaxllm.hardware import set_up
    from jaxllm.plan.compile import model_sizes
    from jaxllm.recipe import find_recipe
    from jaxllm.recipe.program import Program
    from jaxllm.recipe.resolve import resolved
    from jaxllm.sharding import make_mesh
    from jaxllm.training import init_state

    set_up()
    recipe = override(find_recipe(words[0]), words[1:])
    program = Program(resolved(recipe, model_sizes(recipe), recipe.steps), make_mesh(recipe.mesh, recipe.batch_size))

    def begin() -> tuple[Any, Any]:
        batch = {
            name: jax.device_put(jax.numpy.ones(leaf.shape, leaf.dtype), leaf.sharding)
            for name, leaf in program.abstract_batch.items()
        }
        state = init_state(program.model, program.optimizer[0], program.mesh, program.key, program.abstract)
        return jax.block_until_ready((state, batch))

    return Ready(program.compile_step(), begin, recipe, program.mesh)


def measured_memory(ready: Ready) -> dict[str, float]:
    """The most that one device, or on a CPU the process, holds while it makes steps, one after the other."""
    import jax

    from jaxllm.sharding import use_mesh

    with use_mesh(ready.mesh):
        for warm in (True, False):  # what only the first step needs, such as threads and pages of code, is not predicted
            before = start_watching()
            state, batch = ready.begin()
            start_watching()  # making the state is no part of a step
            for _ in range(2 if warm else 5):
                state, metrics = jax.block_until_ready(ready.step(state, batch))
            measured = peak_bytes(before)
            del state, batch, metrics
    return {"measured_memory_mb": measured / 1e6}


def measured_time(ready: Ready, steps: int, rounds: int) -> dict[str, Any]:
    """What is predicted, and seconds of steps."""
    import jax

    from jaxllm.hardware import environment
    from jaxllm.plan import make_plan
    from jaxllm.sharding import use_mesh

    plan = make_plan(ready.recipe)
    on_cpu = jax.devices()[0].platform == "cpu"
    times, cpu_times = [], []
    with use_mesh(ready.mesh):
        state, batch = ready.begin()
        state, _ = jax.block_until_ready(ready.step(state, batch))
        for _ in range(rounds):
            start, cpu_start = time.perf_counter(), time.process_time()
            for _ in range(steps):
                state, metrics = ready.step(state, batch)
            jax.block_until_ready(metrics)
            times.append(1e3 * (time.perf_counter() - start) / steps)
            cpu_times.append(1e3 * (time.process_time() - cpu_start) / steps / plan.devices)
    assert plan.seconds is not None
    return {
        "predicted_memory_mb": plan.memory.peak * (plan.devices if on_cpu else 1) / 1e6,
        "predicted_step_ms": 1e3 * plan.seconds.step,
        "measured_step_ms": min(times),
        "measured_step_ms_rounds": spread(times),
        **({"cpu_time_ms": min(cpu_times)} if on_cpu else {}),
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
