"""The folder of a run, on a disk or in a bucket: a new one, or one that goes on. An earlier run is never overwritten."""

import contextlib
import dataclasses
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxllm.checkpoint import Store
from jaxllm.data import Tokenizer, load_tokenizer
from jaxllm.distributed import Different, from_first, gather, is_first, num_processes, unseen_by
from jaxllm.hardware import environment
from jaxllm.hardware.bucket import PROBE, Bucket, in_bucket, local_path
from jaxllm.recipe.claim import claimed_in_bucket, claimed_on_disk
from jaxllm.recipe.find import is_run_folder
from jaxllm.recipe.recipe import Recipe
from jaxllm.recipe.resolve import FromData, best_of, resolved, with_schedule, with_schedule_of, with_text_of
from jaxllm.recipe.serialize import RECIPE_FILE, differences, from_tree, load_json, save_json, to_tree
from jaxllm.recipe.working_copy import CLAIM_FILE, fetched, working_copy

RUNS = Path("runs")


@dataclass(frozen=True)
class RunFolder:
    place: Path | str
    """The folder, or its URL in a bucket."""
    resumes: bool
    """Whether an earlier run is there, which goes on."""

    @property
    def path(self) -> Path:
        """Where its files are worked on: the folder itself, or the working copy of a URL."""
        return working_copy(self.place).path if isinstance(self.place, str) else self.place

    @property
    def checkpoints(self) -> str:
        return f"{self.place}/checkpoints"

    def store(self, recipe: Recipe) -> Store:
        """Its checkpoints, of which the best are those by what the recipe's evaluations go by."""
        return Store(self.checkpoints, recipe.checkpoint, best_of(recipe))

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    def load_tokenizer(self) -> Tokenizer | None:
        """The run's own tokenizer, once it has been stored."""
        if self.resumes:
            fetched(self.place)
        return load_tokenizer(self.tokenizer) if self.tokenizer.is_dir() else None

    def publish(self) -> None:
        """Files worked on here are in the bucket afterwards, where that is the place; raises OSError."""
        if isinstance(self.place, str):
            working_copy(self.place).publish()

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
        self.publish()

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Keeps other runs out of the folder.

        Raises:
          ValueError: another run trains in it, or did until now.
          Different: not all processes of this run see it.
        """
        if not is_first():
            self._check_shared()
            yield
            return
        claim = claimed_on_disk(self.place) if isinstance(self.place, Path) else claimed_in_bucket(Bucket(self.place))
        with claim:
            self._check_unchanged()
            self._check_shared()
            yield

    def _check_unchanged(self) -> None:
        """What was read of the folder before it was claimed may have changed since; in a bucket its files are copied again."""
        if is_run_folder(self.place) != self.resumes:
            raise ValueError(f"another process has begun a run in {self.place} meanwhile: start again to go on with it")
        if isinstance(self.place, str):
            fetched(self.place)

    def _check_shared(self) -> None:
        """Refuses a folder of which each host has its own: process 0 alone would write to the right one."""
        if num_processes() == 1:
            return
        if isinstance(self.place, str):
            self._check_access(Bucket(self.place))
            return
        mark = from_first(self._leave_mark)
        unseen = unseen_by(mark)
        if is_first():
            Path(mark).unlink()
        if unseen:
            raise Different(
                f"the run folder must be on storage that all processes share: {self.place} of process 0 is not seen by process "
                f"{', '.join(unseen[:8])}; give a --run-dir that all hosts mount, or a gs:// URL"
            )

    def _leave_mark(self) -> str:
        handle, mark = tempfile.mkstemp(prefix=".shared-", dir=self.path.absolute())
        os.close(handle)
        return mark

    def _check_access(self, bucket: Bucket) -> None:
        """Each process must see the claim of process 0."""
        claim = from_first(lambda: CLAIM_FILE)  # which is there by now
        try:
            problem = "" if bucket.exists(claim) else "does not see what process 0 wrote"
        except OSError as error:
            problem = error.strerror or str(error)
        found = [f"{index} ({text})" for index, text in enumerate(gather(problem)) if text]
        if found:
            raise Different(f"all processes must reach {self.place}, which is not so for process {'; '.join(found[:4])}")


def agree_on_folder(recipe: Recipe) -> tuple[RunFolder, Recipe]:
    """What process 0 chooses, by `choose_folder`, on all processes."""
    chosen: list[tuple[RunFolder, Recipe]] = []

    def choose() -> dict[str, Any]:
        folder, fixed = choose_folder(recipe)
        chosen.append((folder, fixed))
        place = folder.place if isinstance(folder.place, str) else str(folder.place.absolute())
        return {"place": place, "resumes": folder.resumes, "recipe": to_tree(fixed)}

    told = from_first(choose)
    if chosen:
        return chosen[0]
    return RunFolder(place_of(told["place"]), told["resumes"]), from_tree(Recipe, told["recipe"], "", "process 0")


def choose_folder(recipe: Recipe) -> tuple[RunFolder, Recipe]:
    """Where this recipe runs: `run_dir`, or the first free of runs/<name>, runs/<name>-2, ...; and the recipe, with what
    an earlier run in that folder has fixed.

    Raises:
      ValueError: the folder holds another recipe's run, or something that is no run.
    """
    if recipe.run_dir is None:
        names = itertools.chain([recipe.name], (f"{recipe.name}-{number}" for number in itertools.count(2)))
        return RunFolder(next(RUNS / name for name in names if not (RUNS / name).exists()), resumes=False), recipe
    place = place_of(recipe.run_dir)
    if is_run_folder(place):
        earlier = load_json(fetched(place) / RECIPE_FILE)
        earlier = with_schedule(earlier, earlier.steps)
        decay_steps = earlier.optimizer.schedule.decay_steps or earlier.steps
        here = resolved(with_schedule_of(recipe, earlier), FromData.of(earlier.model_config), decay_steps)
        here = with_text_of(here, earlier)
        other = differences(earlier, here)
        if other:
            name, (there, wanted) = next(iter(other.items()))
            more = f" and {len(other) - 1} more" if len(other) > 1 else ""
            raise ValueError(
                f"run folder {place} holds a run of another recipe: {name} is {there!r} there and {wanted!r} here{more}; "
                f"choose another --run-dir, or go on with that run by `jaxllm train {place}`"
            )
        return RunFolder(place, resumes=True), here
    if _is_taken(place):
        raise ValueError(f"{place} exists and is not a run folder (it has no {RECIPE_FILE}): choose another --run-dir")
    fetched(place)
    return RunFolder(place, resumes=False), recipe


def place_of(named: str | Path) -> Path | str:
    """A folder as a path, or its URL in a bucket."""
    return Bucket(str(named)).url if in_bucket(named) else local_path(named)


def _is_taken(place: Path | str) -> bool:
    """Whether there is something else than what a run killed at its start leaves."""
    if isinstance(place, str):
        return any(not name.startswith((*LEFTOVERS, CLAIM_FILE, PROBE)) for name in Bucket(place).names())
    return place.exists() and (not place.is_dir() or any(entry.name not in LEFTOVERS for entry in place.iterdir()))


LEFTOVERS = ("environment.json", "tokenizer", "tokenizer.new")
"""What a run killed before its recipe was written may leave."""
