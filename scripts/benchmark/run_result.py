"""The record of a finished run: what its folder says of loss, time and speed, and what its losses mean for the text.

python scripts/benchmark/run_result.py runs/shakespeare_char    # of text: the data set must be there, $JAXLLM_DATA
"""

import argparse
import json
import math
from pathlib import Path
from statistics import median
from typing import Any

from record import write_record

from jaxllm.data import DataConfig, Tokenizer, TokenizerConfig, load_tokenizer, open_data, train_tokenizer
from jaxllm.recipe import Recipe, find_recipe
from jaxllm.training import read_metrics
from jaxllm.training.objectives import CausalLM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--topic", default="run", help="another topic, for a run that is not the recipe as it stands")
    parser.add_argument("--shared", action="store_true", help="other work ran on the machine: its times are no measurement")
    options = parser.parse_args()
    recipe, told = find_recipe(str(options.run_dir)), json.loads((options.run_dir / "results.json").read_text("utf-8"))
    results = logged(recipe, read_metrics(options.run_dir))
    results |= of_training(told)
    results["shared_machine"] = options.shared
    if isinstance(recipe.objective, CausalLM) and isinstance(recipe.data, DataConfig) and "validation_loss" in results:
        results |= of_text(recipe, recipe.data, load_tokenizer(options.run_dir / "tokenizer"), results["validation_loss"])
    notes = (
        "One run. Losses in nats per target over the whole split; seconds is training with its evaluations, compiling apart."
    )
    if "validation_perplexity" in results:
        notes += (
            " Bits per byte and per character: the loss times the split's tokens, its marks included, over its bytes or "
            "characters. texts_that_come_back: texts of the validation split that are the same after encoding and decoding."
        )
    if options.shared:
        notes += " Other work ran on the machine."
    where = json.loads((options.run_dir / "environment.json").read_text("utf-8"))
    path = write_record(options.topic, recipe, results, notes, where)
    print(path)
    print(json.dumps(results, indent=1))


def logged(recipe: Recipe, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Last losses and accuracies by split, and the medians of times and speeds."""
    unit, train = recipe.objective.reports.unit, [r for r in records if r["split"] == "train"]
    results: dict[str, Any] = {"steps": train[-1]["step"]}
    for split in ("validation", "test"):
        last = next((r for r in reversed(records) if r["split"] == split), {})
        results |= {f"{split}_{name}": last[name] for name in ("loss", "accuracy", unit) if name in last}
    if "validation_loss" in results:
        results["best_validation_loss"] = min(r["loss"] for r in records if r["split"] == "validation")
    results["step_ms"] = 1e3 * median(r["step_seconds"] for r in train)
    results[f"{unit}_per_second"] = median(r[f"{unit}_per_second"] for r in train)
    return results


def of_training(told: dict[str, Any]) -> dict[str, Any]:
    """What goes into the record of the results that a run ended with: of a task what its best checkpoint is worth, and a sample
    where it has one."""
    results = {name: told[name] for name in ("parameters", "seconds")}
    for split in ("validation", "test"):
        if (measured := told.get(split)) is not None:
            results[f"{split}_loss"] = measured["loss"]
            results |= {f"{split}_{name}": found["value"] for name, found in measured["metrics"].items()}
    return results if told.get("sample") is None else results | {"sample": told["sample"]}


def of_text(recipe: Recipe, config: DataConfig, tokenizer: Tokenizer, loss: float) -> dict[str, Any]:
    """The validation loss as perplexity and, so that tokenizers can be compared, as bits of a byte and of a character."""
    assert config.validation_split is not None
    rows = open_data(config, seed=recipe.seed, tokenizer=tokenizer).rows(config.validation_split)
    texts, bits = list(rows.documents), loss / math.log(2) * rows.table.num_tokens
    others = {"bytes": train_tokenizer(TokenizerConfig(kind="bytes"), [])}
    return {
        "validation_perplexity": math.exp(loss),
        "validation_bits_per_byte": bits / sum(len(text.encode("utf-8", "surrogatepass")) for text in texts),
        "validation_bits_per_character": bits / sum(map(len, texts)),
        "validation_texts": len(texts),
        "texts_that_come_back": {
            name: sum(text == coder.decode(coder.encode(text)) for text in texts)
            for name, coder in {config.tokenizer.kind: tokenizer, **others}.items()
        },
    }


if __name__ == "__main__":
    main()
