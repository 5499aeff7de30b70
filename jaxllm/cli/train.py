"""`jaxllm train`: train a recipe, or go on with a run."""

import shlex

HELP = """usage: jaxllm train RECIPE|RUN_DIR [--field VALUE ...]

Trains the recipe in a Python file (configs/*.py) or a JSON file, in a new folder runs/<name>.
Given the folder of a run, goes on from its newest good checkpoint.

  --steps N               optimizer steps in all
  --seed N                initial parameters, data order, dropout
  --run-dir DIR           folder of the run
  --batch-size N          rows a step, over all devices
  --mesh.data N           copies of the model, each on its share of the batch
  --mesh.fsdp N           parts that parameters and optimizer state are spread over
  --mesh.tensor N         parts that heads, feed-forward width and vocabulary are split into
  --checkpoint.every N    steps between checkpoints
  --evaluate.every N      steps between evaluations
  --optimizer.learning-rate X, --model.num-layers N, ...: any field of the recipe, dotted

  jaxllm train RECIPE --help    every field, with its value in that recipe

SIGTERM or Ctrl-C finish the step, save, and say how to go on.
"""


def run(argv: list[str]) -> int:
    if not argv or argv[0].startswith("-"):
        print(HELP, end="")
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    from jaxllm.cli.overrides import override
    from jaxllm.recipe import find_recipe, fit, is_run_folder

    source, *rest = argv
    recipe = find_recipe(source)
    if is_run_folder(source) and any(option.partition("=")[0] in ("--run-dir", "--run_dir") for option in rest):
        raise ValueError(f"--run-dir is for a recipe: {source} is the folder of a run, which goes on where it is")
    fit(override(recipe, rest), command=shlex.join(["jaxllm", "train", *argv]))
    return 0
