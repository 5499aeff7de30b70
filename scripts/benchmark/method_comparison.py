"""Every fine-tuning method on the same model, texts and seeds: quality, forgetting, what learns, memory, time, file size.

python scripts/benchmark/method_comparison.py minilm --tune             # choose the learning rates: one seed, validation split
python scripts/benchmark/method_comparison.py minilm                    # three seeds of each, on the test split, and the record
python scripts/benchmark/method_comparison.py smollm2 --default-rates   # the same at the rates that recipes give

Bases: smollm2 and minilm on SST-2, vit on images. The model is fetched by its name, or is what --pretrained names; the data set
must be there ($JAXLLM_DATA; configs/smollm2_sst2.py and configs/vit_cifar10_finetune.py say how they are built). What has been
measured stands in runs/method_comparison-BASE.json: stopped and started again, both commands go on from there. Much of a short
run is tracing and compiling, which one core does: with --jobs 2 two runs go on at a time, each on half of the cores.
"""

import argparse
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from compared_methods import BASES, METHODS, SCRATCH, methods_of, rates_of, recipe_of
from record import spread, write_record

from jaxllm.finetune import learning_rate
from jaxllm.recipe import Recipe
from jaxllm.training.optimizer import LEARNING_RATE

WORKER = Path(__file__).parent / "compared_methods.py"
MORE_RATES = 2
"""How many rates tuning adds at most beyond those it began with, while the best is the lowest or the highest."""
TUNING_SEED = 100
NOTES = (
    "The same base, steps, data and seeds for all methods; a new head learns, too. accuracy: on the test split, of each "
    "seed with its 95 % bootstrap interval. forgetting: the base's loss on a fixed text before and after, in nats a token. "
    "peak_mb: largest resident size of the process until the end of training; file_bytes: what has to be kept. refused: why a "
    "method has no place here. scratch: the base's architecture, begun anew. Learning rates: "
)
TUNED = f"the best of a few by their accuracy on the validation split, seed {TUNING_SEED}, which is none of those here."
DEFAULT = "those of a recipe that names none, for each method (jaxllm/finetune/rates.py, chosen on MiniLM)."


class Kept:
    """What has been measured so far, in a file that is written anew after each run; and the cores that are free for runs."""

    def __init__(self, path: Path, settings: dict[str, Any], jobs: int = 1):
        self.path = path
        self.lock = threading.Lock()
        self.free: SimpleQueue[list[int] | None] = SimpleQueue()
        cores = sorted(os.sched_getaffinity(0)) if jobs > 1 else []
        for job in range(jobs):
            self.free.put(cores[job * len(cores) // jobs : (job + 1) * len(cores) // jobs] or None)
        self.found: dict[str, Any] = {"settings": settings, "tuning": {}, "runs": {}, "refused": {}}
        if path.is_file():
            self.found = json.loads(path.read_text("utf-8"))
            if self.found["settings"] != json.loads(json.dumps(settings)):
                raise SystemExit(f"{path} holds runs of other settings: name another file by --kept, or move it away")

    def keep(self, shown: Any, *place: str) -> None:
        """Under these keys, and in the file."""
        with self.lock:
            part = self.found
            for key in place[:-1]:
                part = part.setdefault(key, {})
            part[place[-1]] = shown
            self.write()

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.found, indent=1) + "\n", "utf-8")
        os.replace(part, self.path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("base", choices=BASES)
    parser.add_argument("--pretrained", help="folder of the base, if it is on this machine")
    parser.add_argument("--methods", nargs="+", choices=METHODS, metavar="NAME", help="by default all")
    parser.add_argument("--seeds", type=int, default=3)
    rates = parser.add_mutually_exclusive_group()
    rates.add_argument("--tune", action="store_true", help="choose learning rates, and measure nothing else")
    rates.add_argument("--default-rates", action="store_true", help="each method at the rate that a recipe gives it")
    parser.add_argument("--kept", type=Path, help="file of what has been measured")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on its share of the cores")
    parser.add_argument("--shared", action="store_true", help="other work ran on the machine: its times are no measurement")
    options = parser.parse_args()
    recipe = recipe_of(options.base, "full", 0, 1e-3, folder=None, pretrained=None, tuning=False)
    path = options.kept or Path("runs", f"method_comparison-{options.base}.json")
    settings, names = settings_of(recipe), options.methods or methods_of(options.base)
    if options.default_rates:
        settings["rates"] = {name: default_rate(name) for name in methods_of(options.base)}
    kept = Kept(path, settings, options.jobs)
    with ThreadPoolExecutor(options.jobs) as pool:
        if options.tune:
            begun = [pool.submit(tune, kept, options.base, name, options.pretrained) for name in names]
        else:
            wanted = [(name, seed) for name in names for seed in range(options.seeds)]
            begun = [pool.submit(run_once, kept, options.base, *each, options.pretrained) for each in wanted]
        try:
            for each in begun:
                each.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    found = summary(kept.found)
    print(table(found))
    if options.tune or set(methods_of(options.base)) - set(found["methods"]) - set(found["refused"]):
        return
    notes = NOTES + (DEFAULT if options.default_rates else TUNED)
    notes += " Other work ran on the machine." if options.shared else ""
    notes += f" {options.jobs} runs at a time, each on its share of the cores." if options.jobs > 1 else ""
    described = dataclasses.replace(recipe, name=options.base)
    print(
        write_record("method_comparison", described, {"shared_machine": options.shared, "jobs": options.jobs, **found}, notes)
    )


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What all runs of a comparison share."""
    tree = dataclasses.asdict(recipe)
    return {name: tree[name] for name in ("steps", "batch_size", "data", "objective", "loss")}


def tune(kept: Kept, base: str, name: str, pretrained: str | None) -> None:
    """Tries the rates of a method, and more beyond them while the best is at an end."""
    tried = dict(kept.found["tuning"].get(name, {}))
    rates = sorted({*rates_of(base, name), *map(float, tried)})
    most = len(rates_of(base, name)) + MORE_RATES
    while name not in kept.found["refused"]:
        missing = [rate for rate in rates if str(rate) not in tried]
        if missing:
            shown = measure(kept, base, name, TUNING_SEED, missing[0], pretrained, tuning=True)
            if shown is not None:
                tried[str(missing[0])] = shown
                kept.keep(shown, "tuning", name, str(missing[0]))
            continue
        more = beyond(tried)
        if more is None or len(rates) >= most:
            return
        rates = sorted([*rates, more])


def beyond(tried: Mapping[str, Any]) -> float | None:
    """The next rate of 1, 3, 10, 30, ... where the best so far is the lowest or the highest."""
    rates, best = sorted(map(float, tried)), best_rate(tried)
    if best not in (rates[0], rates[-1]):
        return None
    power, odd = divmod(round(2 * math.log10(best)) + (-1 if best == rates[0] else 1), 2)
    return float(f"{3 if odd else 1}e{power}")


def best_rate(tried: Mapping[str, Any]) -> float:
    """The rate with the highest accuracy, of several that with the lowest loss; one that diverged has none."""
    there = {rate: shown for rate, shown in tried.items() if "accuracy" in shown}
    if not there:
        raise SystemExit(f"no learning rate of {', '.join(tried)} led to a finite loss")
    return float(max(there, key=lambda rate: (there[rate]["accuracy"]["value"], -there[rate]["loss"])))


def run_once(kept: Kept, base: str, name: str, seed: int, pretrained: str | None) -> None:
    """One run of the table, unless it is there."""
    runs = kept.found["runs"].get(name, {})
    if name in kept.found["refused"] or str(seed) in runs:
        return
    if "rates" in kept.found["settings"]:
        rate = kept.found["settings"]["rates"][name]
    elif kept.found["tuning"].get(name):
        rate = best_rate(kept.found["tuning"][name])
    else:
        raise SystemExit(f"{name} has no learning rate yet: run with --tune first, or with --default-rates")
    shown = measure(kept, base, name, seed, rate, pretrained, tuning=False)
    if shown is not None:
        kept.keep(shown | {"learning_rate": rate}, "runs", name, str(seed))


def default_rate(name: str) -> float:
    """That of a recipe that names none."""
    return LEARNING_RATE if name == SCRATCH else learning_rate(METHODS[name].method)


def measure(
    kept: Kept, base: str, name: str, seed: int, rate: float, pretrained: str | None, *, tuning: bool
) -> dict[str, Any] | None:
    """A run in a process of its own; None for a method that the model does not take, which is kept. A loss that is not finite
    is told as `diverged`.

    Raises:
      SystemExit: anything else went wrong.
    """
    folder = kept.path.parent / f"{kept.path.stem}-{name}-{seed}"
    command = [sys.executable, str(WORKER), base, name, str(seed), str(rate), str(folder)]
    command += [*(["--pretrained", pretrained] if pretrained else []), *(["--tuning"] if tuning else [])]
    cores = kept.free.get()
    pinned = [] if cores is None else ["taskset", "--cpu-list", ",".join(map(str, cores))]
    start = time.perf_counter()
    try:
        done = subprocess.run([*pinned, *command], capture_output=True, text=True)
    finally:
        kept.free.put(cores)
    lines = done.stderr.strip().splitlines() or [""]
    if done.returncode == 0:
        shown = json.loads(done.stdout.strip().splitlines()[-1])
        told = f"accuracy {shown['accuracy']['value']:.4f}, loss {shown['loss']:.4f}, {shown['peak_mb']:.0f} MB"
    elif "NonFiniteLoss" in lines[-1]:
        shown, told = {"diverged": lines[-1]}, "diverged"
    elif lines[-1].startswith("ValueError: method "):
        shown, told = None, lines[-1].removeprefix("ValueError: ")
        kept.keep(told, "refused", name)
    else:
        raise SystemExit(f"{name}, seed {seed}, rate {rate:g}:\n" + "\n".join(lines[-20:]))
    print(f"{name}, seed {seed}, rate {rate:g}: {told}; {time.perf_counter() - start:.0f} s", flush=True)
    return shown


def summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """The record's results: by method, its rate and what the seeds have shown."""
    methods = {}
    for name, runs in found["runs"].items():
        each = [runs[seed] for seed in sorted(runs, key=int)]
        values = [shown["accuracy"]["value"] for shown in each]
        methods[name] = {
            "learning_rate": each[0]["learning_rate"],
            "accuracy_mean": statistics.mean(values),
            "accuracy_deviation": statistics.stdev(values) if len(values) > 1 else None,
            "accuracy_by_seed": [shown["accuracy"] for shown in each],
            "trainable_parameters": each[0]["trainable_parameters"],
            "file_bytes": each[0]["file_bytes"],
            **{key: spread([shown[key] for shown in each]) for key in ("loss", "peak_mb", "step_ms", "seconds")},
        }
        if all("forgetting" in shown for shown in each):
            methods[name]["forgetting"] = [shown["forgetting"] for shown in each]
    tuning = {
        name: {rate: {key: shown.get(key) for key in ("accuracy", "loss", "diverged")} for rate, shown in tried.items()}
        for name, tried in found["tuning"].items()
    }
    return {"methods": methods, "refused": found["refused"], "tuning": tuning}


def table(results: Mapping[str, Any]) -> str:
    """The methods in Markdown, best first; without a column for forgetting where the base has no language model's head."""
    methods = sorted(results["methods"].items(), key=lambda item: -item[1]["accuracy_mean"])
    columns = [
        ("method", lambda name, _: name),
        ("rate", lambda _, shown: f"{shown['learning_rate']:g}"),
        ("test accuracy", lambda _, shown: accuracy(shown)),
        ("loss of the base text", lambda _, shown: forgotten(shown["forgetting"])),
        ("learn", lambda _, shown: f"{shown['trainable_parameters']:,}"),
        ("peak MB", lambda _, shown: f"{shown['peak_mb']['median']:,.0f}"),
        ("ms a step", lambda _, shown: f"{shown['step_ms']['median']:,.0f}"),
        ("file kB", lambda _, shown: f"{shown['file_bytes'] / 1e3:,.0f}"),
    ]
    if not all("forgetting" in shown for _, shown in methods):
        del columns[3]
    lines = [f"| {' | '.join(head for head, _ in columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(cell(name, shown) for _, cell in columns)} |" for name, shown in methods]
    refused = [f"{name}: {why}" for name, why in results["refused"].items()]
    return "\n".join([*lines, *([""] if refused else []), *refused])


def accuracy(shown: Mapping[str, Any]) -> str:
    deviation = shown["accuracy_deviation"]
    return f"{100 * shown['accuracy_mean']:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def forgotten(found: list[dict[str, float]]) -> str:
    """The base's loss on a fixed text and the mean of those after training."""
    return f"{found[0]['before']:.3f} to {statistics.mean(each['after'] for each in found):.3f}"


if __name__ == "__main__":
    main()
