"""MiniLM fine-tuned on ten sets by five methods; full and LoRA also by transformers' Trainer, from the same start.

    python scripts/benchmark/trainer_parity.py MODEL FOLDER --trainer-python PYTHON      # goes on where it stopped
    python scripts/benchmark/trainer_parity.py MODEL FOLDER --record                     # writes the record

MODEL is a folder with all-MiniLM-L6-v2. The recipes are configs/minilm_*.py, without dropout, so that both sides compute the
same but for rounding: the same examples in the same order, the same head and matrices A to begin with, AdamW with the same
settings. Each run ends as a JSON file in FOLDER. scripts/oracle/trainer_fit.py is the other side; what it predicts is scored by
the same functions.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from record import CHECKOUT, write_named_record

from jaxllm.finetune import AdaLoRA, AnyMethod, Bottleneck, Full, LoRA, PrefixTuning
from jaxllm.finetune.tasks.question import best_spans
from jaxllm.hardware import set_up
from jaxllm.interchange import write_folder
from jaxllm.models import num_params
from jaxllm.recipe import Job, Loaded, Recipe, assemble, find_recipe, save_adapter
from jaxllm.recipe.family import family_of
from jaxllm.recipe.load import first_state
from jaxllm.recipe.pretrained import described, pretrained_tokenizer
from jaxllm.recipe.recipe import FromPretrained

SETS = ("sst2", "mr", "ag_news", "mrpc", "cola", "stsb", "wnut17", "conll2000", "chnsenticorp", "squad2")
METHODS: dict[str, tuple[AnyMethod, float]] = {
    "full": (Full(), 1.0),
    "lora": (LoRA(), 10.0),
    "adalora": (AdaLoRA(), 20.0),
    "bottleneck": (Bottleneck(), 10.0),
    "prefix": (PrefixTuning(), 100.0),
}
"""With what the recipe's learning rate, which is for full training, is multiplied by."""
BOTH = ("full", "lora")
"""Methods that the Trainer is measured on, too."""
STEPS = 100
"""Of a run; a tenth of them are warm-up."""
MORE_STEPS = {"cola": 400}
"""Where the usual number of steps leaves one class for every sentence."""
TEST = {"ag_news": 1000, "mrpc": 1000, "stsb": 1000, "wnut17": 1000, "conll2000": 500, "squad2": 500}
"""Test examples, where they are not all."""
KINDS = {
    "TextClassification": "sequence",
    "Regression": "sequence",
    "TokenClassification": "tokens",
    "QuestionAnswering": "span",
}


def recipe_of(name: str, method: str, seed: int, model: str, dropout: float | None) -> Recipe:
    recipe = find_recipe(str(CHECKOUT / "configs" / f"minilm_{name}.py"))
    how, faster = METHODS[method]
    steps = MORE_STEPS.get(name, STEPS)
    schedule = dataclasses.replace(recipe.optimizer.schedule, warmup_steps=steps // 10)
    assert recipe.optimizer.learning_rate is not None
    rate = faster * recipe.optimizer.learning_rate
    optimizer = dataclasses.replace(recipe.optimizer, learning_rate=rate, schedule=schedule)
    data = dataclasses.replace(recipe.data, test_split=f"test[:{TEST[name]}]" if name in TEST else "test")
    changes = {"pretrained": model, "model": FromPretrained(dropout=dropout), "method": how, "seed": seed, "steps": steps}
    return dataclasses.replace(recipe, optimizer=optimizer, data=data, **changes)  # type: ignore[arg-type]


def open_job(recipe: Recipe) -> Job:
    set_up()
    return assemble(described(recipe), pretrained_tokenizer(recipe))


def examples_of(rows: Any, numbers: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    """The items of these numbers, as scripts/oracle/trainer_fit.py reads them."""
    table, offsets = rows.table, rows.table.offsets("")
    lengths = (offsets[1:] - offsets[:-1])[numbers]
    places = np.concatenate([np.arange(offsets[number], offsets[number + 1]) for number in numbers])
    found = {"tokens": table.array("tokens")[places], "offsets": np.concatenate([[0], np.cumsum(lengths)])}
    if "token_types" in table.by_token(""):
        found["token_types"] = table.array("token_types")[places]
    if kind == "span":
        return found | {"starts": table.array("starts")[numbers], "ends": table.array("ends")[numbers]}
    targets, weights = table.array("targets")[places], table.array("loss_weights")[places]
    labels = np.where(weights > 0, targets, -100) if kind == "tokens" else targets[weights > 0]
    return found | {"labels": labels.astype(np.int64) if labels.dtype.kind == "i" else labels}


def export(job: Job, state: Any, folder: Path, model: str) -> None:
    """What the other side begins with."""
    recipe, config = job.recipe, job.recipe.model_config
    kind, optimizer = KINDS[type(recipe.objective).__name__], recipe.optimizer
    own = Loaded(model=job.model, params=state.whole, tokenizer=job.tokenizer, source=model, recipe=recipe)
    base = {name: value for name, value in state.whole.items()}
    if not isinstance(recipe.method, Full):
        save_adapter(own, folder / "adapter", to="peft")
        base = recipe.method.merge(base)  # B is 0, so the base as it is
    write_folder(folder / "start", family_of(config, None, model), config, base, job.tokenizer)
    rows: Any = job.train
    numbers = rows._numbers(np.arange(recipe.steps * recipe.batch_size))
    np.savez(folder / "train.npz", **examples_of(rows, numbers, kind))  # type: ignore[arg-type]
    test: Any = job.rows(recipe.data.test_split or "test")
    np.savez(folder / "test.npz", **examples_of(test, np.arange(len(test.table)), kind))  # type: ignore[arg-type]
    settings = {
        "kind": kind,
        "labels": config.head.num_labels,  # type: ignore[union-attr]
        "steps": recipe.steps,
        "batch_size": recipe.batch_size,
        "seed": recipe.seed,
        "dropout": config.dropout,
        "warmup_steps": optimizer.schedule.warmup_steps,
        **{name: getattr(optimizer, name) for name in ("learning_rate", "b1", "b2", "epsilon", "weight_decay", "clip_norm")},
    }
    (folder / "settings.json").write_text(json.dumps(settings))


def theirs_found(job: Job, found: dict[str, np.ndarray], logits: np.ndarray) -> dict[str, np.ndarray]:
    """What was found here with the other side's logits in the place of ours."""
    if "labels" in found:
        return found | {"labels": logits.argmax(axis=-1)}
    if "logits" in found:
        return found | {"logits": logits}
    rows: Any = job.rows(job.recipe.data.test_split or "test")
    offsets, ends = rows.table.offsets(""), rows.table.array("char_ends")
    begins = rows.table.array("char_begins")
    spans = [
        best_spans(
            jnp.asarray(logits[None, item, : offsets[item + 1] - offsets[item]]),
            {
                "char_begins": begins[None, offsets[item] : offsets[item + 1]],
                "char_ends": ends[None, offsets[item] : offsets[item + 1]],
            },
            job.recipe.objective.max_answer,  # type: ignore[union-attr]
        )
        for item in range(len(rows.table))
    ]
    return found | {name: np.concatenate([np.asarray(one[name]) for one in spans]) for name in spans[0]}


def measured(scores: Any) -> dict[str, list[float]]:
    return {name: [value.value, value.low, value.high] for name, value in scores.measured().items()}


def run(name: str, method: str, seed: int, model: str, python: str | None, out: Path) -> None:
    """One run, and the same by the other side."""
    job = open_job(recipe_of(name, method, seed, model, dropout=0.0))
    state, *_ = first_state(job.recipe, job.model, job.mesh, job.abstract)
    result: dict[str, Any] = {"set": name, "method": method, "seed": seed}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if method in BOTH:
            export(job, state, folder, model)
        result |= {"learning": num_params(job.abstract.params), "learning_rate": job.recipe.optimizer.learning_rate}
        step, batches, losses = job.compile_step(), job.batches(0), []
        begin = time.perf_counter()
        for _ in range(job.recipe.steps):
            state, metrics = step(state, next(batches))
            losses.append(float(metrics["loss"]))
        result["train_seconds"] = time.perf_counter() - begin
        batches.close()
        split = job.recipe.data.test_split or "test"
        _, scores, found = job.predict_split(state.whole, split)
        result |= {"examples": scores.count, "metric": next(iter(job.recipe.objective.metrics)), "ours": measured(scores)}  # type: ignore[union-attr]
        result["final_loss"] = float(np.mean(losses[-20:]))
        if method in BOTH:
            assert python is not None, "full and LoRA need --trainer-python"
            script = CHECKOUT / "scripts" / "oracle" / "trainer_fit.py"
            subprocess.run([python, str(script), str(folder)], check=True, stdout=subprocess.DEVNULL)
            with np.load(folder / "found.npz") as other:
                given = theirs_found(job, found, other["logits"])
                theirs = job.recipe.objective.score(given, job.rows(split), job.data)  # type: ignore[union-attr]
                apart = np.abs(other["loss"] - losses) / np.abs(losses)
            report = json.loads((folder / "found.json").read_text())
            result |= {"theirs": measured(theirs), "trainer_seconds": report["train_seconds"]}
            result |= {"learning_there": report["learning"], "first_loss_apart": float(apart[0])}
            result |= {"losses_apart": float(np.median(apart))}
    out.write_text(json.dumps(result))


def table(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*--*--*.json"))]


def show(results: list[dict[str, Any]]) -> None:
    for one in results:
        metric = one["metric"]
        value, low, high = (100 * x for x in one["ours"][metric])
        line = f"{one['set']:13} {one['method']:10} seed {one['seed']} {metric:10} {value:6.2f} ({low:.1f} to {high:.1f})"
        if "theirs" in one:
            other = 100 * one["theirs"][metric][0]
            line += f" Trainer {other:6.2f} difference {value - other:+.2f} losses {one['losses_apart']:.1e}"
        print(line)


def record(folder: Path, model: str) -> None:
    results = table(folder)
    show(results)
    settings = {}
    for name in SETS:
        recipe = recipe_of(name, "full", 0, Path(model).name, dropout=0.0)
        settings[name] = dataclasses.asdict(recipe)
    apart = [100 * abs(one["ours"][one["metric"]][0] - one["theirs"][one["metric"]][0]) for one in results if "theirs" in one]
    found: dict[str, Any] = {"largest_difference_points": max(apart), "runs": results}
    notes = (
        "Values are [metric, low, high] on the test examples, with a 95 % bootstrap interval; a point is 0.01. No dropout on "
        "either side, float32; the Trainer's loss of spans without padding, which transformers' own has in "
        "it, and with the token types, which peft's class for spans does not pass on. losses_apart: the median over steps of "
        "the relative difference of the training losses. Learning "
        f"rates: the recipe's times {', '.join(f'{faster:g} ({name})' for name, (_, faster) in METHODS.items())}; not tuned. "
        f"{STEPS} steps{''.join(f', {name} {steps}' for name, steps in MORE_STEPS.items())}. "
        "The seconds are no measurement: other work ran, and most runs had one core. Test examples: all, but "
        f"the first {', '.join(f'{n} of {name}' for name, n in TEST.items())}."
    )
    print(write_named_record("trainer_parity", "minilm", settings, found, notes))


def main() -> None:
    parser = argparse.ArgumentParser(description="MiniLM here and in transformers' Trainer.")
    parser.add_argument("model", help="a folder with all-MiniLM-L6-v2")
    parser.add_argument("folder", type=Path, help="where finished runs are kept")
    parser.add_argument("--trainer-python", help="a Python with torch, transformers and peft")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=tuple(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--one", type=Path, help="write the one run that is meant into this file")
    parser.add_argument("--record", action="store_true", help="write the record of the runs that there are")
    args = parser.parse_args()
    if args.record:
        return record(args.folder, args.model)
    if args.one is not None:
        return run(args.sets[0], args.methods[0], args.seeds[0], args.model, args.trainer_python, args.one)
    args.folder.mkdir(parents=True, exist_ok=True)
    wanted = [(name, method, seed) for seed in args.seeds for name in args.sets for method in args.methods]
    for name, method, seed in wanted:
        out = args.folder / f"{name}--{method}--{seed}.json"
        if out.exists():
            continue
        python = [] if args.trainer_python is None else ["--trainer-python", args.trainer_python]
        meant = ["--sets", name, "--methods", method, "--seeds", str(seed), "--one", str(out)]
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, __file__, args.model, str(args.folder), *meant, *python], check=False)
        print(f"{out.name}: {'failed' if done.returncode else f'{time.perf_counter() - begin:.0f} s'}", flush=True)
    show(table(args.folder))


if __name__ == "__main__":
    main()
