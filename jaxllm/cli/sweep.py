"""`jaxllm sweep`: run a recipe many times, to search for its best fields or to see how far its figures can be trusted."""

import argparse
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxllm.sweep import Sweep

HELP = """usage: jaxllm sweep RECIPE --search FIELD=LOW..HIGH[:log] --search FIELD=A,B,C --trials N [--field VALUE ...]
       jaxllm sweep RECIPE --seeds 0,1,2 [--folds K] [--field VALUE ...]
       jaxllm sweep SWEEP_DIR [--trials N] [--seeds ...]

Runs a recipe many times, one run after the other, each in a folder of its own inside the sweep's, where report.html and
results.json say what came out. The same command, or the sweep's folder alone, goes on with a sweep that was stopped or
killed; a run that was cut off goes on from its last checkpoint.
Needs Optuna: pip install 'jaxllm[sweep]'

  --search FIELD=...   a field of the recipe, dotted, and what to choose from: numbers from LOW to HIGH, with :log evenly by
                       their logarithm, or some values; once for each field. The recipe's own values are tried first
  --trials N           runs of a search in all; may be raised later
  --prune NAME         when a bad trial is given up, from its evaluations: median (the default), hyperband or none
  --metric NAME        what counts, of the validation split: loss, accuracy, ...; by default evaluate.metric of the recipe
  --seeds 0,1,2        the same recipe with each seed: mean and deviation of every metric
  --folds K            the training split in K parts, each in turn held out and evaluated on, at the end: mean and deviation
  --sweep-dir DIR      the sweep's folder; by default runs/<name>-sweep, runs/<name>-seeds or runs/<name>-folds
  --steps N, --evaluate.every N, --model.num-layers N, ...: any field of the recipe, the same in all runs

  jaxllm sweep configs/shakespeare_char.py --search optimizer.learning-rate=3e-4..3e-2:log --search batch-size=8,16,32 \\
      --trials 20 --steps 300 --evaluate.every 50
"""


def run(argv: list[str]) -> int:
    if not argv or argv[0].startswith("-") or {"-h", "--help"} & set(argv):
        print(HELP, end="")
        return 0 if {"-h", "--help"} & set(argv) else 2
    source, *rest = argv
    own, options = _own_options(rest)
    _check_installed()
    from pathlib import Path

    from jaxllm.cli.train import STOPPED_BY_CLOUD
    from jaxllm.distributed import is_notice
    from jaxllm.sweep import SearchConfig, default_folder, describe, is_sweep_folder, repeat, search

    sweep = _sweep(source, own, options, shlex.join(["jaxllm", "sweep", *argv]))
    there = source if is_sweep_folder(source) else own["sweep_dir"]
    folder = Path(there) if there else default_folder(sweep.recipe, sweep.config)
    run_all: Any = search if isinstance(sweep.config, SearchConfig) else repeat
    done = run_all(sweep, folder, _say, _write)
    _write(done)
    print(f"\n{describe(done)}\nreport: {folder}/report.html")
    if done.stopped is not None:
        return STOPPED_BY_CLOUD if is_notice(done.stopped) else 0
    return 0 if (done.best if isinstance(sweep.config, SearchConfig) else done.spreads) else 1


def _say(line: str) -> None:
    print(line, flush=True)


def _write(done: Any) -> None:
    from jaxllm.sweep import write_results, write_sweep_report

    write_results(done)
    write_sweep_report(done)


def _own_options(argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The command's own options, and those of the recipe."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--search", action="append", default=[])
    parser.add_argument("--trials", type=int)
    for name in ("--prune", "--metric", "--seeds", "--sweep-dir"):
        parser.add_argument(name)
    parser.add_argument("--folds", type=int)
    try:
        options, rest = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        number = "must be a whole number" if "invalid int" in error.message else "needs a value"
        got = error.message.rpartition(": ")[2] if "invalid int" in error.message else "none; see jaxllm sweep --help"
        raise ValueError(f"{error.argument_name} {number}: got {got}") from None
    if options.sweep_dir is not None and "://" in options.sweep_dir:
        raise ValueError(f"--sweep-dir must be on a disk, where SQLite can keep the trials: got {options.sweep_dir}")
    if any(option.partition("=")[0] in ("--run-dir", "--run_dir") for option in rest):
        raise ValueError("a sweep's runs have folders inside that of the sweep: give --sweep-dir instead of --run-dir")
    return vars(options), rest


def _check_installed() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise ValueError("a sweep needs Optuna: pip install 'jaxllm[sweep]'") from None


def _sweep(source: str, own: dict[str, Any], options: list[str], command: str) -> "Sweep":
    """What is asked: anew of a recipe, or of the folder of a sweep with perhaps more trials or seeds."""
    import dataclasses
    from pathlib import Path

    from jaxllm.cli.overrides import override
    from jaxllm.recipe import find_recipe, is_run_folder
    from jaxllm.sweep import RepeatConfig, SearchConfig, Sweep, is_sweep_folder, load_sweep

    if own["metric"] is not None:
        options = [*options, "--evaluate.metric", own["metric"]]
    if is_sweep_folder(source):
        fixed = [name for name in ("search", "prune", "sweep_dir", "folds") if own[name]]
        if fixed:
            raise ValueError(
                f"--{fixed[0].replace('_', '-')} is for a recipe: {source} is the folder of a sweep, which has its own"
            )
        earlier = load_sweep(Path(source))
        is_search = isinstance(earlier.config, SearchConfig)
        more = {"trials": own["trials"]} if is_search else {"seeds": _seeds(own["seeds"])}
        wrong = "seeds" if is_search else "trials"
        if own[wrong] is not None:
            raise ValueError(f"--{wrong} is for another kind of sweep than that in {source}: leave it out")
        config = dataclasses.replace(earlier.config, **{name: value for name, value in more.items() if value})
        return dataclasses.replace(earlier, recipe=override(earlier.recipe, options), config=config)
    recipe = dataclasses.replace(override(find_recipe(source), options), run_dir=None)
    trained = f"{source}/recipe.json" if is_run_folder(source) else source
    config = _search_config(recipe, own) if own["search"] else _repeat_config(own)
    assert isinstance(config, SearchConfig | RepeatConfig)
    return Sweep(recipe=recipe, config=config, command=command, train=("jaxllm", "train", trained, *options))


def _search_config(recipe: Any, own: dict[str, Any]) -> Any:
    from jaxllm.cli.overrides import check_names
    from jaxllm.sweep import SearchConfig, read_space

    if own["seeds"] is not None or own["folds"] is not None:
        raise ValueError("--search and --seeds or --folds are two sweeps: search first, then run the best with several seeds")
    if own["trials"] is None:
        raise ValueError("--search needs --trials N, how many runs to make: got none")
    if own["prune"] not in (None, "median", "hyperband", "none"):
        raise ValueError(f"--prune must be median, hyperband or none: got {own['prune']!r}")
    for text in own["search"]:
        name = text.partition("=")[0].strip()
        check_names(recipe, [f"--{name.lstrip('-')}"])
    space = tuple(each.text for each in read_space(recipe, own["search"]))
    return SearchConfig(space=space, trials=own["trials"], prune=own["prune"] or "median")


def _repeat_config(own: dict[str, Any]) -> Any:
    from jaxllm.sweep import RepeatConfig

    if own["seeds"] is None and own["folds"] is None:
        raise ValueError("a sweep needs --search FIELD=..., --seeds 0,1,2 or --folds K: got none; see jaxllm sweep --help")
    for name in ("trials", "prune"):
        if own[name] is not None:
            raise ValueError(f"--{name} is for a --search: got it without one; leave it out")
    return RepeatConfig(seeds=_seeds(own["seeds"]), folds=own["folds"])


def _seeds(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(",")) if text is not None else ()
    except ValueError:
        raise ValueError(f"--seeds must be whole numbers, such as 0,1,2: got {text!r}") from None
