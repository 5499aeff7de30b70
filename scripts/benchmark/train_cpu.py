"""Step time of a recipe on the CPU, in turn with nanoGPT in PyTorch eager, and the time from command to first step.

python scripts/benchmark/train_cpu.py --nanogpt ../nanoGPT --torch-python /path/to/python-with-torch
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import spread, write_record
from turns import alternate

from jaxllm.hardware import num_cores, set_up
from jaxllm.recipe import find_recipe

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipe", default="configs/shakespeare_char.py")
    parser.add_argument("--nanogpt", help="folder of a nanoGPT checkout to measure in turn with ours")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--steps", type=int, default=20, help="steps a round")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()

    set_up()
    commands = {"jaxllm": [sys.executable, str(HERE / "jaxllm_step.py"), options.recipe]}
    if options.nanogpt:
        worker = str(HERE / "nanogpt_step.py")
        commands["nanogpt"] = [options.torch_python, worker, options.nanogpt, str(num_cores())]
    times = alternate(commands, options.steps, options.rounds)
    results: dict = {f"{name}_step_ms": spread([1e3 * t for t in values]) for name, values in times.items()}
    if "nanogpt" in times:
        ratios = [ours / theirs for ours, theirs in zip(times["jaxllm"], times["nanogpt"], strict=True)]
        results["jaxllm_over_nanogpt"] = spread(ratios)
    _print(results)
    starts = {}
    starts["import_s"] = spread([_timed([sys.executable, "-c", "import jaxllm"]) for _ in range(5)])
    starts["help_s"] = spread([_timed([sys.executable, "-m", "jaxllm", "--help"]) for _ in range(5)])
    first_step(options.recipe)
    starts["command_to_first_step_s"] = spread([first_step(options.recipe) for _ in range(3)])
    _print(starts)
    notes = (
        f"Rounds of {options.steps} steps, jaxllm and nanoGPT in turn, each in its own process; steps include the input "
        "pipeline. command_to_first_step_s: from starting `jaxllm train` to the first line of metrics.jsonl, compiled "
        "programs cached."
    )
    print(write_record("train_cpu", find_recipe(options.recipe), results | starts, notes))


def _print(results: dict) -> None:
    for name, value in results.items():
        print(f"{name:<26} min {value['min']:8.3f}  median {value['median']:8.3f}  max {value['max']:8.3f}", flush=True)


def _timed(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def first_step(recipe: str) -> float:
    """Seconds from starting the command to the first line in metrics.jsonl."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        command = [sys.executable, "-m", "jaxllm", "train", recipe, "--run-dir", str(run_dir)]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as train:
            metrics = run_dir / "metrics.jsonl"
            while not (metrics.exists() and metrics.stat().st_size):
                if train.poll() is not None:
                    assert train.stderr is not None
                    raise SystemExit(f"jaxllm train ended early: {train.stderr.read().decode()}")
                time.sleep(0.01)
            seconds = time.perf_counter() - start
            train.kill()
    return seconds


if __name__ == "__main__":
    main()
