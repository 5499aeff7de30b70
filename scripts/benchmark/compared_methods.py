"""The methods that method_comparison.py compares, the models and the recipe; and, as a program, one of its runs.

A run is a process of its own, so that its largest resident size is that of one method; it prints one JSON object.
"""

import argparse
import dataclasses
import json
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.finetune import (
    IA3,
    AdaLoRA,
    AnyMethod,
    BitFit,
    Bottleneck,
    Freeze,
    Full,
    LoRA,
    PrefixTuning,
    PromptTuning,
    PTuning,
    VeRA,
)
from jaxllm.recipe import Recipe, find_recipe, fit
from jaxllm.recipe.adapter import save_adapter
from jaxllm.recipe.load import peek
from jaxllm.training import read_metrics

CONFIGS = Path(__file__).parents[2] / "configs"
TEXT = "Is this review of a film negative or positive?"


class Compared(NamedTuple):
    method: AnyMethod
    rates: tuple[float, ...]
    """Learning rates that tuning begins with, lowest first, each about three times the one before."""


LOW, MIDDLE, HIGH = (1e-5, 3e-5, 1e-4), (3e-4, 1e-3, 3e-3), (3e-3, 1e-2, 3e-2)
ALL: Any = {"targets": ("all-linear",)}
SCRATCH = "scratch"
METHODS: dict[str, Compared] = {
    SCRATCH: Compared(Full(), MIDDLE),
    "full": Compared(Full(), LOW),
    "head": Compared(Freeze(), HIGH),
    "bitfit": Compared(BitFit(), MIDDLE),
    "lora": Compared(LoRA(**ALL), MIDDLE),
    "rslora": Compared(LoRA(rank_stabilized=True, **ALL), MIDDLE),
    "dora": Compared(LoRA(dora=True, **ALL), MIDDLE),
    "pissa": Compared(LoRA(initialization="pissa", **ALL), (1e-4, 3e-4, 1e-3)),
    "lora_plus": Compared(LoRA(lora_plus_ratio=16.0, **ALL), (1e-4, 3e-4, 1e-3)),
    "adalora": Compared(AdaLoRA(), HIGH),
    "houlsby": Compared(Bottleneck(kind="houlsby"), MIDDLE),
    "pfeiffer": Compared(Bottleneck(kind="pfeiffer"), MIDDLE),
    "parallel": Compared(Bottleneck(kind="parallel", scaling=4.0), MIDDLE),
    "prefix": Compared(PrefixTuning(), HIGH),
    "prefix_mlp": Compared(PrefixTuning(projection=True), MIDDLE),
    "prompt_random": Compared(PromptTuning(initialization="random"), HIGH),
    "prompt_sampled": Compared(PromptTuning(), HIGH),
    "prompt_text": Compared(PromptTuning(initialization="text", text=TEXT), HIGH),
    "p_tuning": Compared(PTuning(), MIDDLE),
    "ia3": Compared(IA3(), HIGH),
    "vera": Compared(VeRA(**ALL), HIGH),
}
"""By the name in the table; scratch is the base's architecture with new numbers."""


class Base(NamedTuple):
    config: str
    """The recipe of the runs, but for method, learning rate, seed and splits."""
    scale: float = 1.0
    """Factor on the rates that tuning begins with: small models learn at higher ones."""
    pretrained: str | None = None
    """The model; by default the recipe's."""
    steps: int | None = None
    """Likewise."""
    batch_size: int | None = None
    """Likewise."""
    texts: int | None = None
    """How many of the validation and of the test examples are looked at; by default the recipe's."""
    scratch: bool = False
    """Whether training from nothing is compared, too."""


BASES = {
    "smollm2": Base("smollm2_sst2", batch_size=8, texts=200),
    "minilm": Base("smollm2_sst2", pretrained="sentence-transformers/all-MiniLM-L6-v2", steps=80),
    "vit": Base("vit_cifar10_finetune", scale=10.0, scratch=True),
}


def methods_of(base: str) -> list[str]:
    """The names of the methods that a base is fitted by, or that are refused for it."""
    return [name for name in METHODS if name != SCRATCH or BASES[base].scratch]


def rates_of(base: str, method: str) -> tuple[float, ...]:
    """The learning rates that tuning begins with."""
    return tuple(float(f"{BASES[base].scale * rate:.1g}") for rate in METHODS[method].rates)


def recipe_of(
    base: str, method: str, seed: int, rate: float, *, folder: str | None, pretrained: str | None, tuning: bool
) -> Recipe:
    """A run: of the tuning, which looks at the validation split alone, or of the table, which looks at the test split alone."""
    chosen = BASES[base]
    recipe = find_recipe(str(CONFIGS / f"{chosen.config}.py"))
    steps = chosen.steps or recipe.steps
    unread, read = ("test_split", "validation_split") if tuning else ("validation_split", "test_split")
    splits: dict[str, Any] = {unread: None}
    if chosen.texts is not None:
        splits[read] = f"{getattr(recipe.data, read).partition('[')[0]}[:{chosen.texts}]"
    data = dataclasses.replace(recipe.data, **splits)
    schedule = dataclasses.replace(recipe.optimizer.schedule, warmup_steps=steps // 10)
    source = pretrained or chosen.pretrained or recipe.pretrained
    assert source is not None
    begun: Any = {"pretrained": source}
    if method == SCRATCH:
        begun = {"pretrained": None, "model": recipe.objective.headed(peek(source).config)}  # type: ignore[union-attr]
    return dataclasses.replace(
        recipe,
        name=f"{base}_{method}",
        steps=steps,
        batch_size=chosen.batch_size or recipe.batch_size,
        seed=seed,
        run_dir=folder,
        method=METHODS[method].method,
        data=data,
        optimizer=dataclasses.replace(recipe.optimizer, learning_rate=rate, schedule=schedule),
        evaluate=dataclasses.replace(recipe.evaluate, every=steps),
        checkpoint=CheckpointConfig(every=steps, keep_best=0),
        **begun,
    )


def measured(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Trains, and says what the run has shown."""
    fit(recipe)
    told = json.loads((folder / "results.json").read_text("utf-8"))
    times = [line["step_seconds"] for line in read_metrics(folder) if line["split"] == "train"]
    split = told["validation" if recipe.data.validation_split else "test"]
    shown = {
        "accuracy": split["metrics"]["accuracy"],
        "loss": split["loss"],
        "trainable_parameters": told["trainable_parameters"],
        "peak_mb": told["peak_memory_bytes"] / 1e6,
        "step_ms": 1e3 * statistics.median(times),
        "seconds": told["seconds"],
    }
    if told.get("forgetting") is not None:
        shown["forgetting"] = told["forgetting"]
    if recipe.data.validation_split is None:
        shown["file_bytes"] = file_bytes(folder, recipe.method, told["parameters"])
    return shown


def file_bytes(run: Path, method: AnyMethod, parameters: int) -> int:
    """Size of what has to be kept of a run: its adapter, or where all has learnt the whole model in float32."""
    if isinstance(method, Full):
        return 4 * parameters
    kept = save_adapter(run, run / "adapter")
    return sum(file.stat().st_size for file in kept.rglob("*") if file.is_file())


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("base", choices=BASES)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("seed", type=int)
    parser.add_argument("rate", type=float)
    parser.add_argument("folder", type=Path, help="a folder for the run, which is deleted at its end")
    parser.add_argument("--pretrained")
    parser.add_argument("--tuning", action="store_true")
    options = parser.parse_args(words)
    given: dict[str, Any] = vars(options) | {"folder": str(options.folder)}
    try:
        print(json.dumps(measured(recipe_of(**given), options.folder)))
    finally:
        shutil.rmtree(options.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
