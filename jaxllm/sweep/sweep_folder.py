"""The folder of a sweep: sweep.json says what is asked, each run has a folder in it, and results come beside them."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from jaxllm.hardware.bucket import in_bucket, local_path
from jaxllm.recipe import Recipe
from jaxllm.recipe.claim import claimed_on_disk
from jaxllm.recipe.run_folder import RUNS
from jaxllm.recipe.serialize import differences, from_tree, to_tree

SWEEP_FILE = "sweep.json"
Pruner = Literal["median", "hyperband", "none"]


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    space: tuple[str, ...]
    """Fields and what to choose from, such as "optimizer.learning_rate=0.0001..0.01:log"."""
    trials: int
    """Runs in all, those that were pruned among them."""
    prune: Pruner = "median"
    """When a trial is given up: median: its best so far is worse than what half of the others had at that step; hyperband
    (Li et al. 2018): most trials end early, a third goes on each time; none: never."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"--trials must be at least 1: got {self.trials}")


@dataclass(frozen=True, kw_only=True)
class RepeatConfig:
    seeds: tuple[int, ...] = ()
    """A run with each of these; by default that of the recipe."""
    folds: int | None = None
    """Parts of the training split; in each run another is what is evaluated on, and the others are trained on."""

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"--seeds must differ: got {','.join(map(str, self.seeds))}")
        if self.folds is not None and self.folds < 2:
            raise ValueError(f"--folds must be at least 2: got {self.folds}")
        if self.folds is None and len(self.seeds) < 2:
            raise ValueError(f"--seeds must be two or more, such as 0,1,2: got {','.join(map(str, self.seeds)) or 'none'}")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is asked of a sweep."""

    recipe: Recipe
    """Of all runs, but for what differs between them; `run_dir` is left to the sweep."""
    config: SearchConfig | RepeatConfig
    command: str = ""
    """What the user typed, for the report."""
    train: tuple[str, ...] = ()
    """Words of the command that trains the recipe as it is, to which those of the best trial are put; by default not known."""


def is_sweep_folder(place: str | Path) -> bool:
    return not in_bucket(place) and (local_path(place) / SWEEP_FILE).is_file()


def default_folder(recipe: Recipe, config: SearchConfig | RepeatConfig) -> Path:
    """Always the same for the same command, which therefore goes on with what it began."""
    kind = "sweep" if isinstance(config, SearchConfig) else "seeds" if config.folds is None else "folds"
    return RUNS / f"{recipe.name}-{kind}"


def load_sweep(folder: Path) -> Sweep:
    """What a folder was asked."""
    path = folder / SWEEP_FILE
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        kinds: dict[str, Any] = {"search": SearchConfig, "repeat": RepeatConfig}
        kind = next(name for name in kinds if name in tree)
        config = kinds[kind](**{name: tuple(x) if isinstance(x, list) else x for name, x in tree[kind].items()})
        recipe = from_tree(Recipe, tree["recipe"], "", str(path))
        return Sweep(recipe=recipe, config=config, command=tree["command"], train=tuple(tree["train"]))
    except (KeyError, StopIteration, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} must describe a sweep: {type(error).__name__}: {error}; begin anew in another folder"
        ) from None


def open_folder(folder: Path, sweep: Sweep) -> None:
    """Writes down what is asked, unless the folder was asked the same before; to be called inside `claimed`.

    Raises:
      ValueError: the folder holds another sweep, or something else.
    """
    if is_sweep_folder(folder):
        _check_same(folder, load_sweep(folder), sweep)
    elif any(folder.iterdir()):
        raise ValueError(
            f"{folder} exists and is not the folder of a sweep (it has no {SWEEP_FILE}): choose another --sweep-dir"
        )
    kind = "search" if isinstance(sweep.config, SearchConfig) else "repeat"
    words = {"command": sweep.command, "train": sweep.train}
    tree = {**words, kind: asdict(sweep.config), "recipe": to_tree(replace(sweep.recipe, run_dir=None))}
    temporary = folder / f"{SWEEP_FILE}.new"
    temporary.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(folder / SWEEP_FILE)


def _check_same(folder: Path, earlier: Sweep, sweep: Sweep) -> None:
    other = {name: pair for name, pair in differences(earlier.recipe, sweep.recipe).items() if name != "run_dir"}
    before, now = (_facts(each) for each in (earlier, sweep))
    other |= {name: (before.get(name), now.get(name)) for name in before | now if before.get(name) != now.get(name)}
    if other:
        name, (was, wanted) = next(iter(other.items()))
        raise ValueError(
            f"{folder} holds another sweep: {name} is {was!r} there and {wanted!r} here; choose another --sweep-dir, or go on "
            f"with that one by `jaxllm sweep {folder}`"
        )


def _facts(sweep: Sweep) -> dict[str, Any]:
    """What must be the same to go on, besides what makes a run the same; there may be more trials, and other seeds."""
    asked = {name: value for name, value in asdict(sweep.config).items() if name not in ("trials", "seeds")}
    evaluations = {f"evaluate.{name}": value for name, value in vars(sweep.recipe.evaluate).items()}
    return {"kind of sweep": type(sweep.config).__name__, **asked, "steps": sweep.recipe.steps, **evaluations}


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Makes the folder, and keeps other sweeps out of it."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--sweep-dir must be a folder: {folder} is a file")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(claimed_on_disk(folder))
        except ValueError:
            raise ValueError(f"another process sweeps in {folder}: wait for it, or choose another --sweep-dir") from None
        yield
