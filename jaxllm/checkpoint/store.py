"""Saves and restores the state of a run: asynchronous, atomic, verified bit for bit.

    store = Store(run_dir / "checkpoints", config.checkpoint)
    store.save(step, state, {"examples": 6000}, metrics={"loss": 1.9})     # returns after the copy to the host
    store.close()                                                          # waits for the disk

    step, state, meta = store.restore(abstract_state)                      # the newest good one, on any mesh

What is saved does not depend on how the arrays were sharded, and `abstract_state` says how they shall be now.
"""

import errno
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxllm.checkpoint import files
from jaxllm.checkpoint.config import CheckpointConfig, CheckpointError, SaveError, best_steps, steps_to_delete
from jaxllm.checkpoint.manifest import Damaged, Manifest, describe, named_leaves
from jaxllm.checkpoint.verify import read_verified, reason, system_error

OnDamaged = Callable[[int, str], None]


class Restored(NamedTuple):
    """A checkpoint read back."""

    step: int
    """Steps taken when it was saved."""
    state: Any
    """The arrays, in the structure and with the shardings that were asked for."""
    meta: dict[str, Any]
    """What was saved beside them."""


def _warn(step: int, message: str) -> None:
    warnings.warn(message, stacklevel=5)


class Store:
    """The checkpoints of one run, a folder for each saved step; used by one thread.

    One save is written at a time, so `save` first waits for the one before, which is long done unless `every` is tiny.
    """

    def __init__(self, folder: str | Path, config: CheckpointConfig | None = None):
        self._folder = Path(folder).absolute()
        self._config = config or CheckpointConfig()
        self._checkpointer = files.make_checkpointer()
        self._thread: threading.Thread | None = None
        self._failure: SaveError | None = None
        self._damaged: set[int] = set()

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, oldest first; whether they are good is seen when they are restored."""
        return files.finished_steps(self._folder)

    def best_step(self) -> int | None:
        """The saved step with the best metric; None if none was saved with one."""
        return next(iter(best_steps(self._metrics(), self._config)), None)

    def save(self, step: int, state: Any, meta: dict[str, Any], metrics: Mapping[str, float] | None = None) -> None:
        """Start saving `state` and `meta` as one; the arrays may be donated to the next step at once.

        Args:
          meta: JSON values.
          metrics: figures of this step; the one named by `config.best_metric` decides whether it is kept as best.

        Raises:
          SaveError: this save could not be started, or the one before it failed (then this one is under way). The
            checkpoints of earlier steps are untouched, and later saves may work again.
        """
        self._join()
        earlier_failure, self._failure = self._failure, None
        arrays = named_leaves(state)
        manifest = describe(step, arrays, meta, metrics or {})
        try:
            self._make_room(step, sum(array.nbytes for array in arrays.values()))
            files.write(self._checkpointer, self._folder / str(step), arrays, manifest.to_json())
        except Exception as error:
            raise self._undo(step, error) from error
        self._thread = threading.Thread(target=self._finish, args=(step,), name=f"checkpoint-{step}")
        self._thread.start()
        if not self._config.asynchronous:
            self.wait()
        if earlier_failure is not None:
            raise earlier_failure

    def wait(self) -> None:
        """Return once everything is on disk; raises SaveError if the last save failed."""
        self._join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Wait, then release what the store holds."""
        try:
            self.wait()
        finally:
            self._checkpointer.close()

    def restore(self, abstract_state: Any, step: int | None = None, on_damaged: OnDamaged = _warn) -> Restored:
        """Read a checkpoint and verify every bit of it.

        Args:
          abstract_state: the state's structure, with a `jax.ShapeDtypeStruct` for each array; its `sharding` says where
            the array goes, whatever mesh it was saved from.
          step: which one; by default the newest good one.
          on_damaged: called with the step and a sentence for each damaged checkpoint newer than the one returned.

        Raises:
          CheckpointError: there is none, the one asked for is damaged, or it does not fit `abstract_state`.
        """
        return self._restore(abstract_state, "", step, on_damaged)

    def restore_params(self, abstract_params: Any, step: int | None = None, on_damaged: OnDamaged = _warn) -> Restored:
        """As `restore`, for the `params` of the saved state alone; no other array is read."""
        found = self._restore({"params": abstract_params}, "params/", step, on_damaged)
        return found._replace(state=found.state["params"])

    def _restore(self, abstract: Any, prefix: str, step: int | None, on_damaged: OnDamaged) -> Restored:
        self._join()
        wanted = named_leaves(abstract)
        steps = self.steps()
        if step is not None and step not in steps:
            there = f"there are {', '.join(map(str, steps))}" if steps else "there are none"
            raise CheckpointError(f"no checkpoint of step {step} in {self._folder}: {there}")
        if not steps:
            raise CheckpointError(f"no checkpoint in {self._folder}: train first, or name another run folder")
        damaged: dict[int, str] = {}
        for candidate in reversed([s for s in steps if step is None or s <= step]):
            try:
                arrays, meta = read_verified(self._checkpointer, self._folder / str(candidate), wanted, prefix)
            except Damaged as damage:
                damaged[candidate] = str(damage)
                continue
            break
        else:
            reasons = "; ".join(f"step {bad}: {why}" for bad, why in damaged.items())
            raise CheckpointError(f"no good checkpoint in {self._folder}: {reasons}")
        if step in damaged:
            raise CheckpointError(
                f"checkpoint {self._folder / str(step)} is damaged ({damaged[step]}): the previous good one is step {candidate}"
            )
        self._damaged.update(damaged)
        for bad, why in damaged.items():
            on_damaged(bad, f"checkpoint of step {bad} is damaged ({why}): step {candidate} is used instead")
        return Restored(candidate, jax.tree.unflatten(jax.tree.structure(abstract), list(arrays.values())), meta)

    def _make_room(self, step: int, size: int) -> None:
        """Clear what interrupted saves left; refuse a disk that is full or read-only before anything is written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        files.remove_unfinished(self._folder)
        tempfile.TemporaryFile(dir=self._folder).close()
        free = shutil.disk_usage(self._folder).free
        if free < size:
            message = f"No space left on device, {size / 1e6:.1f} MB needed and {free / 1e6:.1f} MB free"
            raise OSError(errno.ENOSPC, message)
        files.set_aside(self._folder, step)

    def _finish(self, step: int) -> None:
        """The rest of a save, in its own thread: wait for the disk, then delete what need not stay."""
        try:
            self._checkpointer.wait_until_finished()
        except Exception as error:
            self._failure = self._undo(step, error)
            return
        self._damaged.discard(step)
        try:
            files.remove_unfinished(self._folder)
            metrics = self._metrics()
            outdated = {old for old in self._damaged if old < step}
            for old in (outdated | set(steps_to_delete(metrics, self._config))) & set(self.steps()):
                files.remove_step(self._folder, old)
        except Exception as error:
            self._failure = _save_error(
                f"checkpoint of step {step} is saved, but an older one in {self._folder} could not be deleted: {reason(error)}",
                error,
            )

    def _undo(self, step: int, error: Exception) -> SaveError:
        """Leave the folder as it was before the failed save, and say what happened."""
        files.remove_unfinished(self._folder, but=step)
        files.put_back(self._folder, step)
        steps = self.steps()
        newest = f"The newest there is step {steps[-1]}" if steps else "There is no earlier one"
        return _save_error(
            f"checkpoint of step {step} could not be saved in {self._folder}: {reason(error)}. {newest}; make room or make "
            "the folder writable",
            error,
        )

    def _metrics(self) -> dict[int, dict[str, float]]:
        """The metrics of each checkpoint that can be read and was not found damaged."""
        metrics = {}
        for step in self.steps():
            try:
                metrics[step] = Manifest.read(self._folder / str(step) / "manifest").metrics
            except Damaged:
                self._damaged.add(step)
        return {step: values for step, values in metrics.items() if step not in self._damaged}

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None


def _save_error(message: str, cause: Exception) -> SaveError:
    error = SaveError(message)
    error.errno = system_error(cause) or errno.EIO
    error.__cause__ = cause
    return error
