"""The record of a finished run: what its folder says of loss, time and speed.

python scripts/benchmark/run_result.py runs/shakespeare_char
"""

import argparse
import dataclasses
import json
from pathlib import Path
from statistics import median

from record import write_record

from jaxllm.recipe import find_recipe
from jaxllm.training import read_metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--topic", default="run", help="another topic, for a run that is not the recipe as it stands")
    options = parser.parse_args()
    recipe = find_recipe(str(options.run_dir))
    records = read_metrics(options.run_dir)
    train = [r for r in records if r["split"] == "train"]
    results: dict = {"steps": train[-1]["step"]}
    for split in ("validation", "test"):
        losses = {r["step"]: r["loss"] for r in records if r["split"] == split}
        if losses:
            results[f"{split}_loss"] = losses[max(losses)]
            results[f"{split}_tokens"] = next(r["tokens"] for r in reversed(records) if r["split"] == split)
    if "validation_loss" in results:
        results["best_validation_loss"] = min(r["loss"] for r in records if r["split"] == "validation")
    results["step_ms"] = 1e3 * median(r["step_seconds"] for r in train)
    results["tokens_per_second"] = median(r["tokens_per_second"] for r in train)
    results["seconds"] = json.loads((options.run_dir / "results.json").read_text())["seconds"]
    results["sample"] = json.loads((options.run_dir / "results.json").read_text())["sample"]
    notes = "One run. Losses in nats per token over the whole split; seconds is training with its evaluations, compiling apart."
    path = write_record(options.topic, dataclasses.replace(recipe, run_dir=None), results, notes)
    print(path)
    print(json.dumps({name: value for name, value in results.items() if name != "sample"}, indent=1))


if __name__ == "__main__":
    main()
