"""`jaxllm evaluate`: what a model is worth on a split: its loss, and of a task the metrics with their intervals."""

import argparse
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxllm.cli.parser import Parser

if TYPE_CHECKING:
    from jaxllm.recipe import Recipe
    from jaxllm.recipe.measure_run import Measured

HELP = """tasks: text-classification, prompt-classification, regression, token-classification, question-answering,
sentence-embedding, instruction, preference, text-to-text, image-classification, language-model

Fields of the task and of how the data is read are options, as in `jaxllm train`:
  --task.several, --task.prompt "{text} It was", --data.seq-len 128, --data.text-feature sentence, --evaluate.batch-size 64

All of the split is read; --evaluate.batches N stops after the first N batches.

  jaxllm evaluate runs/sst2                                                    a run on its own data
  jaxllm evaluate runs/sst2 --data mr_labels --split test                      on another set with the same labels
  jaxllm evaluate exported --task text-classification --data sst2_labels       any model that has the head
  jaxllm evaluate adapter --base FOLDER --task text-classification --data sst2_labels
"""


def run(argv: list[str]) -> int:
    parser = Parser(
        prog="jaxllm evaluate",
        description="Measures a trained model over a split: loss and perplexity; for a task its metrics with 95 % intervals "
        "and, where there are classes, a report of them.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="RUN_OR_MODEL", help="a run, a model (folder, name or file), or an adapter's folder")
    parser.add_argument("--task", metavar="NAME", help="what it is measured on (default: the run's own)")
    parser.add_argument("--data", metavar="SET", help="a set of examples (default: the run's own)")
    parser.add_argument("--split", help="split of the set (default: the validation split, else the test split)")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="of a run (default: the best, else the newest)")
    parser.add_argument("--base", metavar="MODEL", help="what an adapter is for (default: what it names)")
    parser.add_argument("--report", metavar="FILE", help="write a page with all of it, FILE.html")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    words, fields = parser.split_fields(argv)
    options = parser.parse_args(words)
    from jaxllm.recipe.evaluation import TASKS, open_evaluation
    from jaxllm.recipe.measure_run import measure_run

    if options.task is not None and options.task not in TASKS:
        parser.error(f"argument --task: invalid choice: '{options.task}' (choose from {', '.join(TASKS)})")
    if options.task == "prompt-classification" and not any(word.startswith("--task.prompt") for word in fields):
        raise ValueError("prompt-classification needs --task.prompt, what is asked, {text} in the text's place: got none")
    evaluation = open_evaluation(
        options.source,
        task=options.task,
        data=options.data,
        split=options.split,
        base=options.base,
        step=options.checkpoint,
        change=_changed(fields) if fields else None,
    )
    job, params, step, split = evaluation
    told = measure_run(job, params, step, {split: split})
    results = told.splits.get(split) or {"split": split, "step": step, **job.evaluate_params(params, split)}
    sample = results.pop("sample", None)
    if options.json:
        print(json.dumps({**results, **told.lost()}, ensure_ascii=False))
    else:
        _print(results, job.recipe)
        if told.forgetting is not None:
            print(told.forgetting.told())
    if options.report is not None:
        command = shlex.join(["jaxllm", "evaluate", *argv])
        _write(Path(options.report), options.source, results, told, job.recipe, sample, command)
    return 0


def _changed(fields: list[str]) -> "Callable[[Recipe], Recipe]":
    """Options that name fields, put into the recipe; the task is its objective."""
    from jaxllm.cli.overrides import override

    def change(recipe: "Recipe") -> "Recipe":
        try:
            return override(recipe, [word.replace("--task.", "--objective.", 1) for word in fields])
        except ValueError as error:
            raise ValueError(str(error).replace("objective.", "task.")) from None

    return change


def _print(results: dict[str, Any], recipe: "Recipe") -> None:
    from jaxllm.evaluate.class_report import report_text
    from jaxllm.recipe.measure import in_words

    unit = recipe.objective.reports.unit
    shown = [f"loss {results['loss']:.4f}"]
    if "metrics" in results:
        shown += [f"{name} {text}" for name, text in in_words(results)]
    else:
        shown[0] += f" nats per {unit.removesuffix('s')}"
        shown += [f"perplexity {results['perplexity']:.3f}"] if "perplexity" in results else []
        shown += [f"accuracy {results['accuracy']:.2%}"] if "accuracy" in results else []
    at = "" if results["step"] is None else f", step {results['step']}"
    sets = " and ".join((recipe.data.dataset, *getattr(recipe.objective, "others", ())))
    print(f"{results['split']} of {sets}{at}: {', '.join(shown)}, {results[unit]:,.0f} {unit}")
    if "report" in results:
        print(f"\n{report_text(results['report'])}")


def _write(
    path: Path, source: str, results: dict[str, Any], told: "Measured", recipe: "Recipe", sample: str | None, command: str
) -> None:
    from jaxllm.evaluate.task_page import forgetting_section, write_evaluation

    title, subtitle = f"{Path(source).name or source} on {recipe.data.dataset}", f"The split {results['split']}"
    measured = {results["split"]: {"metrics": {}, "unit": recipe.objective.reports.unit, **results}}
    lost = forgetting_section(told.lost().get("forgetting"), told.reason)
    write_evaluation(path, title, subtitle, measured, command=command, sample=sample, more=lost)
    print(f"report: {path}")
