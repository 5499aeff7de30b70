"""`jaxllm evaluate`: loss and perplexity of a trained model over a split."""

import json

from jaxllm.cli.parser import Parser


def run(argv: list[str]) -> int:
    parser = Parser(
        prog="jaxllm evaluate", description="Measures loss and perplexity of a trained model over a split of its data set."
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder of a run")
    parser.add_argument("--split", help="split of its data set (default: its validation split)")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="default: the best, else the newest")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    from jaxllm.finetune.tasks import is_task
    from jaxllm.recipe import open_for_evaluation
    from jaxllm.recipe.conclude import in_words, measure

    job, params, step = open_for_evaluation(options.run_dir, step=options.checkpoint)
    split = options.split or job.recipe.data.validation_split
    if split is None:
        raise ValueError(f"{options.run_dir} has no validation split: name one with --split")
    task = is_task(job.recipe.objective)
    results = (
        measure(job, params, split, step) if task else {"step": step, "split": split, **job.evaluate_params(params, split)}
    )
    results.pop("sample", None)
    if options.json:
        print(json.dumps(results))
    else:
        unit = job.recipe.objective.reports.unit
        shown = [f"loss {results['loss']:.4f} nats per {unit.removesuffix('s')}"]
        if "perplexity" in results:
            shown.append(f"perplexity {results['perplexity']:.3f}")
        shown += [f"{name} {text}" for name, text in in_words(results, short=True)] if task else []
        if "accuracy" in results and not task:
            shown.append(f"accuracy {results['accuracy']:.2%}")
        print(f"{split} of {job.recipe.data.dataset}, step {step}: {', '.join(shown)}, {results[unit]:,.0f} {unit}")
    return 0
