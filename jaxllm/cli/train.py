"""`jaxllm train`: train a recipe, or go on with a run."""

import argparse
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxllm.distributed import Hosts

HELP = """usage: jaxllm train RECIPE|RUN_DIR [--field VALUE ...]

Trains the recipe in a Python file (configs/*.py) or a JSON file, in a new folder runs/<name>.
Given the folder of a run, goes on from its newest good checkpoint.

  --steps N               optimizer steps in all
  --seed N                initial parameters, data order, dropout
  --run-dir DIR           folder of the run, or its URL in a bucket: gs://bucket/folder
  --batch-size N          rows a step, over all devices
  --mesh.data N           copies of the model, each on its share of the batch
  --mesh.fsdp N           parts that parameters and optimizer state are spread over
  --mesh.tensor N         parts that heads, feed-forward width and vocabulary are split into
  --checkpoint.every N    steps between checkpoints
  --evaluate.every N      steps between evaluations
  --method NAME           how to fine-tune: full, lora, adalora, ...; its own fields are --method.rank and so on
  --optimizer.learning-rate X, --model.num-layers N, ...: any field of the recipe, dotted

Many processes, all with the same command. On Cloud TPU, GKE and under Slurm they find each other; elsewhere:
  --coordinator HOST:PORT   where the others reach process 0        (or JAX_COORDINATOR_ADDRESS)
  --num-processes N         how many there are                      (or JAX_NUM_PROCESSES)
  --process-index I         which one this is, from 0               (or JAX_PROCESS_ID)
  --connect-timeout SECONDS in which all must have come, 300 by default

  jaxllm train RECIPE --help    every field, with its value in that recipe

SIGTERM, Ctrl-C or the cloud's notice that the machine goes finish the step, save, and say how to go on. The exit code
is 0, but for the cloud's notice 75: start again, there or elsewhere.
"""


STOPPED_BY_CLOUD = 75
"""Exit code for "try again" (EX_TEMPFAIL of sysexits.h): the run is saved and not at its end, and nobody asked for that."""


def run(argv: list[str]) -> int:
    if not argv or argv[0].startswith("-"):
        print(HELP, end="")
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    from jaxllm.distributed import is_notice, joined

    hosts, (source, *rest) = split_hosts(argv)
    with joined(hosts):
        ended = _train(source, rest, shlex.join(["jaxllm", "train", source, *rest]))
    return STOPPED_BY_CLOUD if is_notice(ended) else 0


def split_hosts(argv: list[str]) -> "tuple[Hosts, list[str]]":
    """The options that say which process this is, and the rest.

    Raises:
      ValueError: a value of the wrong kind.
    """
    from jaxllm.distributed import Hosts

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--coordinator")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--process-index", type=int)
    parser.add_argument("--connect-timeout", type=float, default=300.0)
    try:
        options, rest = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(f"{error.argument_name}: {error.message}") from None
    return Hosts(**vars(options)), rest


def _train(source: str, rest: list[str], command: str) -> str:
    from jaxllm.cli.overrides import override
    from jaxllm.recipe import find_recipe, fit, is_run_folder

    recipe = find_recipe(source)
    if is_run_folder(source) and any(option.partition("=")[0] in ("--run-dir", "--run_dir") for option in rest):
        raise ValueError(f"--run-dir is for a recipe: {source} is the folder of a run, which goes on where it is")
    return fit(override(recipe, rest), command=command).ended
