"""What products in 8 bits cost: the loss curve of one small run, three times, with projections as they are, in int8 and in fp8.

    python scripts/benchmark/quantized_training.py configs/shakespeare_char.py --steps 300

On a CPU this tells nothing about speed, for which it has no 8-bit matrix units.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from record import write_record

from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe, find_recipe, fit
from jaxllm.training import read_metrics

KINDS = (None, "int8", "fp8")


def curves(recipe: Recipe) -> dict[str, Any]:
    """Training loss of every step, and the last validation loss, with each kind of product."""
    if not isinstance(recipe.model, TransformerConfig):
        raise SystemExit(f"a recipe of a model of one stack is needed: {recipe.name} has a {type(recipe.model).__name__}")
    results: dict[str, Any] = {}
    for kind in KINDS:
        name = kind or recipe.model.compute_dtype
        model = dataclasses.replace(recipe.model, matmul_dtype=kind)
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            fit(dataclasses.replace(recipe, model=model, run_dir=str(run)))
            lines = read_metrics(run)
        results[f"{name}_train_loss_nats"] = [line["loss"] for line in lines if line["split"] == "train"]
        results[f"{name}_validation_loss_nats"] = [line["loss"] for line in lines if line["split"] == "validation"][-1]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int)
    arguments = parser.parse_args()
    recipe = find_recipe(arguments.recipe)
    schedule = dataclasses.replace(recipe.optimizer.schedule, decay_steps=arguments.steps)
    recipe = dataclasses.replace(
        recipe,
        steps=arguments.steps,
        batch_size=arguments.batch_size or recipe.batch_size,
        optimizer=dataclasses.replace(recipe.optimizer, schedule=schedule),
        evaluate=dataclasses.replace(recipe.evaluate, every=arguments.steps),
    )
    notes = "The same run, seed and data with projections in the type of activations, int8 and fp8; the loss is of every step."
    print(write_record("quantized_training", recipe, curves(recipe), notes))


if __name__ == "__main__":
    main()
