"""The folder of a run: a new one, or one that goes on. An earlier run is never overwritten."""

import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxllm.data import Tokenizer, load_tokenizer
from jaxllm.distributed import Different, from_first, is_first, num_processes, unseen_by
from jaxllm.hardware import environment
from jaxllm.recipe.find import RECIPE_FILE, is_run_folder
from jaxllm.recipe.recipe import Recipe
from jaxllm.recipe.resolve import FromData, resolved
from jaxllm.recipe.serialize import differences, from_tree, load_json, save_json, to_tree

RUNS = Path("runs")


@dataclass(frozen=True)
class RunFolder:
    path: Path
    resumes: bool
    """Whether an earlier run is there, which goes on."""

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    def load_tokenizer(self) -> Tokenizer | None:
        """The run's own tokenizer, once it has been stored."""
        return load_tokenizer(self.tokenizer) if self.tokenizer.is_dir() else None

    def write_description(self, recipe: Recipe, tokenizer: Tokenizer | None) -> None:
        """recipe.json, environment.json and the tokenizer, of text; the recipe comes last, so that it marks a whole folder."""
        if not is_first():
            return
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")
        if tokenizer is not None and not self.tokenizer.is_dir():
            unfinished = self.path / "tokenizer.new"
            tokenizer.save(unfinished)
            unfinished.rename(self.tokenizer)
        save_json(dataclasses.replace(recipe, run_dir=None), self.path / RECIPE_FILE)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Makes the folder and keeps other runs out of it; a folder in which nothing came to be is taken away.

        Raises:
          ValueError: another run trains in it.
          Different: not all processes of this run see it.
        """
        if not is_first():
            self._check_shared()
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise ValueError(f"another process is training in {self.path}: wait for it, or choose another --run-dir") from None
        try:
            self._check_shared()
            yield
        finally:
            if not any(self.path.iterdir()):
                self.path.rmdir()
            os.close(handle)

    def _check_shared(self) -> None:
        """Refuses a folder of which each host has its own: process 0 alone would write to the right one."""
        if num_processes() == 1:
            return
        mark = from_first(self._leave_mark)
        unseen = unseen_by(mark)
        if is_first():
            Path(mark).unlink()
        if unseen:
            raise Different(
                f"the run folder must be on storage that all processes share: {self.path} of process 0 is not seen by process "
                f"{', '.join(unseen[:8])}; give a --run-dir that all hosts mount"
            )

    def _leave_mark(self) -> str:
        handle, mark = tempfile.mkstemp(prefix=".shared-", dir=self.path.absolute())
        os.close(handle)
        return mark


def agree_on_folder(recipe: Recipe) -> tuple[RunFolder, Recipe]:
    """What process 0 chooses, by `choose_folder`, on all processes."""
    chosen: list[tuple[RunFolder, Recipe]] = []

    def choose() -> dict[str, Any]:
        folder, fixed = choose_folder(recipe)
        chosen.append((folder, fixed))
        return {"path": str(folder.path.absolute()), "resumes": folder.resumes, "recipe": to_tree(fixed)}

    told = from_first(choose)
    if chosen:
        return chosen[0]
    return RunFolder(Path(told["path"]), told["resumes"]), from_tree(Recipe, told["recipe"], "", "process 0")


def choose_folder(recipe: Recipe) -> tuple[RunFolder, Recipe]:
    """Where this recipe runs: `run_dir`, or the first free of runs/<name>, runs/<name>-2, ...; and the recipe, with what
    an earlier run in that folder has fixed.

    Raises:
      ValueError: the folder holds another recipe's run, or something that is no run.
    """
    if recipe.run_dir is None:
        names = itertools.chain([recipe.name], (f"{recipe.name}-{number}" for number in itertools.count(2)))
        return RunFolder(next(RUNS / name for name in names if not (RUNS / name).exists()), resumes=False), recipe
    path = _on_disk(recipe.run_dir)
    if is_run_folder(path):
        earlier = load_json(path / RECIPE_FILE)
        decay_steps = earlier.optimizer.schedule.decay_steps or earlier.steps
        here = resolved(recipe, FromData.of(earlier.model), decay_steps)
        other = differences(earlier, here)
        if other:
            name, (there, wanted) = next(iter(other.items()))
            more = f" and {len(other) - 1} more" if len(other) > 1 else ""
            raise ValueError(
                f"run folder {path} holds a run of another recipe: {name} is {there!r} there and {wanted!r} here{more}; "
                f"choose another --run-dir, or go on with that run by `jaxllm train {path}`"
            )
        return RunFolder(path, resumes=True), here
    if path.exists() and (not path.is_dir() or any(entry.name not in LEFTOVERS for entry in path.iterdir())):
        raise ValueError(f"{path} exists and is not a run folder (it has no {RECIPE_FILE}): choose another --run-dir")
    return RunFolder(path, resumes=False), recipe


def _on_disk(place: str) -> Path:
    if "://" in place.removeprefix("file://"):
        raise ValueError(
            f"run_dir must be a folder of the file system: got {place}; mount the bucket on every host (for gs://, "
            "gcsfuse BUCKET /mnt/BUCKET) and give --run-dir /mnt/BUCKET/..."
        )
    return Path(place.removeprefix("file://"))


LEFTOVERS = ("environment.json", "tokenizer", "tokenizer.new")
"""What a run killed before its recipe was written may leave."""
