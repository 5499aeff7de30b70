"""Step time and MFU of recipes on one GPU; GPT-2 124M in turn with nanoGPT in PyTorch (torch.compile, flash attention).

python scripts/benchmark/train_gpu.py configs/gpt2_124m.py --batch-size 16 --nanogpt ../nanoGPT --torch-python /path/to/python
python scripts/benchmark/train_gpu.py configs/llama_1b.py --batch-size 4 -- --model.remat minimal

Nothing is read from disk: random tokens of the recipe's shape lie on the device. What follows `--` are fields of the recipe.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from record import spread, write_record
from turns import alternate

from jaxllm.hardware import set_up
from jaxllm.recipe import find_recipe

HERE = Path(__file__).parent


def main() -> None:
    argv, overrides = _split(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("recipe")
    parser.add_argument("--batch-size", type=int, default=16, help="rows a step, not accumulated")
    parser.add_argument("--nanogpt", help="folder of a nanoGPT checkout to measure in turn with ours")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has torch with CUDA")
    parser.add_argument("--steps", type=int, default=20, help="steps a round")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(argv)

    recipe = find_recipe(options.recipe)
    seq_len = getattr(recipe.data, "seq_len", None)
    size = str(options.batch_size)
    fields = ["--batch-size", size, "--accumulate", "1", "--mesh.data", "1", "--mesh.fsdp", "1", *overrides]
    commands = {"jaxllm": [sys.executable, str(HERE / "synthetic_step.py"), options.recipe, *fields]}
    if options.nanogpt:
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.4")  # both programs are on the device
        worker = str(HERE / "nanogpt_gpu_step.py")
        commands["nanogpt"] = [options.torch_python, worker, options.nanogpt, size, str(seq_len)]
    told: dict[str, list[str]] = {}
    times = alternate(commands, options.steps, options.rounds, told)
    about = {name: json.loads(next(line for line in lines if line.startswith("{"))) for name, lines in told.items()}
    results: dict[str, Any] = {f"{name}_step_ms": spread([1e3 * t for t in values]) for name, values in times.items()}
    ours = about["jaxllm"]
    results["tokens_per_second"] = spread([ours["tokens_per_step"] / t for t in times["jaxllm"]])
    if ours["peak_flops"]:
        results["mfu"] = spread([ours["flops_per_step"] / t / ours["peak_flops"] for t in times["jaxllm"]])
    if "nanogpt" in times:
        ratios = [theirs / mine for mine, theirs in zip(times["jaxllm"], times["nanogpt"], strict=True)]
        results["jaxllm_speed_over_nanogpt"] = spread(ratios)
    for name, value in results.items():
        print(f"{name:<26} min {value['min']:12.3f}  median {value['median']:12.3f}  max {value['max']:12.3f}", flush=True)
    notes = (
        f"Rounds of {options.steps} steps each in its own process in turn, {size} rows of {seq_len} random "
        f"tokens on the device, no accumulation; fields changed: {' '.join(overrides) or 'none'}. {json.dumps(about)}"
    )
    set_up()
    print(write_record("train_gpu", recipe, results, notes))


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """What stands before and behind a lone `--`."""
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


if __name__ == "__main__":
    main()
