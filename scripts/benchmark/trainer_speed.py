"""Samples a second of fine-tuning MiniLM, full and LoRA, here and by transformers' Trainer with peft, in turn; peak memory.

    python scripts/benchmark/trainer_speed.py MODEL --trainer-python PYTHON

MODEL is a folder with all-MiniLM-L6-v2. Both sides as they come: configs/minilm_*.py here, with several examples in a row; the
Trainer with DataCollatorWithPadding. The same examples in the same order, dropout as published.
"""

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import CHECKOUT, spread, write_named_record
from trainer_parity import METHODS, export, open_job, recipe_of
from turns import alternate, serve

from jaxllm.recipe.load import first_state

READ_EVERY = 10
WARM_STEPS = 5
"""As scripts/oracle/trainer_fit.py has it."""


def work(name: str, method: str, model: str, batches: int) -> None:
    """Our side: every shape among so many batches is compiled, then steps as those of `jaxllm train`."""
    job = open_job(recipe_of(name, method, 0, model, dropout=None))
    state, *_ = first_state(job.recipe, job.model, job.mesh, job.abstract)
    step: Any = job.compile_step()
    stream = job.batches(0)
    for _ in range(batches):
        step.compiled(next(stream))
    stream.close()
    stream = job.batches(0)

    def steps(count: int) -> None:
        nonlocal state
        pending = []
        for index in range(count):
            state, metrics = step(state, next(stream))
            pending.append(metrics)
            if index % READ_EVERY == READ_EVERY - 1 or index == count - 1:
                for waiting in pending:
                    float(waiting["loss"])
                pending.clear()

    steps(WARM_STEPS)
    serve(steps)


def prepare(name: str, method: str, model: str, folder: Path) -> None:
    """What the Trainer begins with."""
    job = open_job(recipe_of(name, method, 0, model, dropout=None))
    export(job, first_state(job.recipe, job.model, job.mesh, job.abstract)[0], folder, model)


def compare(name: str, method: str, args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        own = [sys.executable, __file__, args.model, "--sets", name, "--methods", method]
        subprocess.run([*own, "--prepare", temporary], check=True)
        script = CHECKOUT / "scripts" / "oracle" / "trainer_fit.py"
        commands = {
            "jaxllm": [*own, "--work", str(WARM_STEPS + args.steps * args.rounds)],
            "trainer": [args.trainer_python, str(script), temporary, "--serve"],
        }
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{temporary}/compiled"  # a first run: compiling takes memory
        peaks: dict[str, int] = {}
        times = alternate(commands, args.steps, args.rounds, peaks=peaks, told={})
    size = recipe_of(name, method, 0, args.model, dropout=None).batch_size
    ratios = [theirs / ours for ours, theirs in zip(times["jaxllm"], times["trainer"], strict=True)]
    found: dict[str, Any] = {f"{who}_samples_per_second": spread([size / t for t in seconds]) for who, seconds in times.items()}
    found |= {"times_as_fast": spread(ratios)}
    found |= {f"{who}_peak_bytes": peak for who, peak in peaks.items()}
    print(
        f"{name} {method}: " + ", ".join(f"{who} {size / statistics.median(t):.1f}/s" for who, t in times.items()),
        f"times {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}),",
        ", ".join(f"{who} {peak / 1e6:.0f} MB" for who, peak in peaks.items()),
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="The speed of fine-tuning here and in transformers' Trainer.")
    parser.add_argument("model", help="a folder with all-MiniLM-L6-v2")
    parser.add_argument("--trainer-python", help="a Python with torch, transformers and peft")
    parser.add_argument("--sets", nargs="+", default=["sst2", "ag_news"])
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=["full", "lora"])
    parser.add_argument("--steps", type=int, default=10, help="steps a round")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--prepare", type=Path, help="write what the Trainer begins with into this folder")
    parser.add_argument("--work", type=int, metavar="BATCHES", help="be the worker that is timed")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    name, method = args.sets[0], args.methods[0]
    if args.prepare is not None:
        return prepare(name, method, args.model, args.prepare)
    if args.work is not None:
        return work(name, method, args.model, args.work)
    results = {f"{name}_{method}": compare(name, method, args) for name in args.sets for method in args.methods}
    if args.record:
        settings = {name: dataclasses.asdict(recipe_of(name, "full", 0, Path(args.model).name, None)) for name in args.sets}
        notes = (
            f"Rounds of {args.steps} steps, both in turn, each in its own process, after all shapes are compiled; the steps "
            "include the input pipeline. Peak bytes are the largest resident size of the process, from its start; programs "
            "are compiled in it."
        )
        print(write_named_record("trainer_speed", "minilm", settings, results, notes))


if __name__ == "__main__":
    main()
