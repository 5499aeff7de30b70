"""Saves and restores the state of a run: asynchronous, atomic, verified bit for bit.

    store = Store(run_dir / "checkpoints", config.checkpoint)
    store.save(step, state, {"examples": 6000}, metrics={"loss": 1.9})     # returns after the copy to the host
    store.failure()                                                        # what went wrong meanwhile, or None
    store.close()                                                          # waits for the disk

    step, state, meta = store.restore(abstract_state)                      # the newest good one, on any mesh

What is saved does not depend on how the arrays were sharded, and `abstract_state` says how they shall be now.
"""

import errno
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxllm.checkpoint import files
from jaxllm.checkpoint.config import Best, CheckpointConfig, CheckpointError, SaveError, best_steps, steps_to_delete
from jaxllm.checkpoint.in_bucket import InBucket
from jaxllm.checkpoint.manifest import Damaged, Manifest, describe, named_leaves
from jaxllm.checkpoint.on_disk import OnDisk
from jaxllm.checkpoint.quiet import quiet_orbax
from jaxllm.checkpoint.verify import read_verified, reason, system_error
from jaxllm.distributed import from_first, is_first, num_processes
from jaxllm.hardware.bucket import in_bucket, local_path

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
    `save` tells of this save only, `wait` of the newest one, `failure` of everything that went wrong in the background.
    What fails leaves earlier checkpoints as they were, and later saves may work again.

    With many processes all of them save and restore, on a folder that they share: each writes and reads its own pieces, and
    process 0 finishes, renames and deletes. They use the same good checkpoint, or none.
    """

    def __init__(self, folder: str | Path, config: CheckpointConfig | None = None, best: Best | None = None):
        self._place = InBucket(str(folder)) if in_bucket(folder) else OnDisk(local_path(folder))
        self._config = config or CheckpointConfig()
        self._best = best or Best()
        self._checkpointer = files.make_writer()
        self._reader = files.make_reader()
        self._thread: threading.Thread | None = None
        self._failures: list[SaveError] = []
        self._unsaved: SaveError | None = None
        self._damaged: set[int] = set()

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, oldest first; whether they are good is seen when they are restored."""
        return self._place.steps()

    def recover(self) -> list[int]:
        """Put back what a save set aside that was killed before it ended; the steps that are there then.

        For the one that writes here, before it reads.
        """
        self._place.put_back()
        return self.steps()

    def best_step(self) -> int | None:
        """The saved step with the best metric; None if none was saved with one."""
        return next(iter(best_steps(self._metrics(), self._best)), None)

    def save(self, step: int, state: Any, meta: dict[str, Any], metrics: Mapping[str, float] | None = None) -> None:
        """Start saving `state` and `meta` as one; the arrays may be donated to the next step at once.

        Args:
          meta: JSON values.
          metrics: figures of this step; the one that `best` names decides whether it is kept as best.

        Raises:
          SaveError: this save could not be started; without `config.asynchronous`, also that it could not be finished. With
            many processes, one that is not `agreed` must end the run: the others may have succeeded.
        """
        self._join()
        self._unsaved = None
        arrays = named_leaves(state)
        manifest = describe(step, arrays, meta, metrics or {})
        self._make_room(step, sum(array.nbytes for array in arrays.values()))
        try:
            with quiet_orbax():
                files.write(self._checkpointer, self._place.begin(step), arrays, manifest.to_json())
        except Exception as error:
            raise self._undo(step, error, agreed=num_processes() == 1) from error
        self._thread = threading.Thread(target=self._finish, args=(step,), name=f"checkpoint-{step}")
        self._thread.start()
        if not self._config.asynchronous:
            self.wait()

    def failure(self) -> SaveError | None:
        """The next thing that went wrong in the background and was not told yet: a save that failed, or old checkpoints
        that could not be deleted after one that worked. Does not wait."""
        return self._failures.pop(0) if self._failures else None

    def wait(self) -> None:
        """Return once the newest save is on disk; raises SaveError, once, if it was started and failed, even where
        `failure` has told of it."""
        self._join()
        unsaved, self._unsaved = self._unsaved, None
        if unsaved is not None:
            self._failures = [failure for failure in self._failures if failure is not unsaved]
            raise unsaved

    def close(self) -> None:
        """Wait, then release what the store holds."""
        try:
            self.wait()
        finally:
            self._checkpointer.close()
            self._reader.close()

    def restore(self, abstract_state: Any, step: int | None = None, on_damaged: OnDamaged = _warn) -> Restored:
        """Read a checkpoint and verify every bit of it.

        Args:
          abstract_state: the state's structure, with a `jax.ShapeDtypeStruct` for each array; its `sharding` says where
            the array goes, whatever mesh it was saved from.
          step: which one; by default the newest good one.
          on_damaged: called with the step and a sentence for each damaged checkpoint newer than the one returned.

        Raises:
          CheckpointError: there is none, the one asked for is damaged, or it does not fit `abstract_state`.
          OSError: the system would not let us read one (permission, too many open files); that is no damage, and no
            older one is used instead.
        """
        return self._restore(abstract_state, "", step, on_damaged)

    def restore_params(self, abstract_params: Any, step: int | None = None, on_damaged: OnDamaged = _warn) -> Restored:
        """As `restore`, for the `params` of the saved state alone; no other array is read."""
        found = self._restore({"params": abstract_params}, "params/", step, on_damaged)
        return found._replace(state=found.state["params"])

    def _restore(self, abstract: Any, prefix: str, step: int | None, on_damaged: OnDamaged) -> Restored:
        self._join()
        wanted = named_leaves(abstract)
        steps = from_first(self.steps)
        if not steps or (step is not None and step not in steps):
            raise CheckpointError(self._none(step, steps))
        candidates = [s for s in reversed(steps) if step is None or s <= step]
        candidate, arrays, meta, damaged = self._newest_good(candidates, wanted, prefix)
        if step in damaged:
            raise CheckpointError(
                f"checkpoint {self._place.name(step)} is damaged ({damaged[step]}): the previous good one is step {candidate}"
            )
        self._damaged.update(damaged)
        for bad, why in damaged.items():
            on_damaged(bad, f"checkpoint of step {bad} is damaged ({why}): step {candidate} is used instead")
        return Restored(candidate, jax.tree.unflatten(jax.tree.structure(abstract), list(arrays.values())), meta)

    def _none(self, step: int | None, steps: list[int]) -> str:
        """Why there is nothing to restore, and what to do."""
        what = f"no checkpoint{'' if step is None else f' of step {step}'} in {self._place}"
        aside = [each for each in self._place.aside() if step in (None, each)]
        if aside:
            return f"{what}: a save that was killed had set step {aside[-1]} aside; `jaxllm train` on this run puts it back"
        if step is None:
            return f"{what}: train first, or name another run folder"
        there = ", ".join(map(str, steps))
        return f"{what}: {f'there are {there}' if steps else 'there are none'}"

    def _newest_good(
        self, candidates: list[int], wanted: Mapping[str, jax.ShapeDtypeStruct], prefix: str
    ) -> tuple[int, dict[str, jax.Array], dict[str, Any], dict[int, str]]:
        """The first good step, what it holds, and what is wrong with those before it."""
        damaged: dict[int, str] = {}
        for step in candidates:
            try:
                with quiet_orbax():
                    arrays, meta = read_verified(self._reader, self._place, step, wanted, prefix)
            except Damaged as damage:
                damaged[step] = str(damage)
                continue
            return step, arrays, meta, damaged
        reasons = "; ".join(f"step {bad}: {why}" for bad, why in damaged.items())
        raise CheckpointError(f"no good checkpoint in {self._place}: {reasons}")

    def _make_room(self, step: int, size: int) -> None:
        """Has process 0 clear the place; raises SaveError on all processes where it cannot."""
        failures: list[SaveError] = []

        def clear() -> list[Any] | None:
            try:
                self._clear(step, size)
            except Exception as error:
                failures.append(self._undo(step, error))
                return [str(failures[0]), failures[0].errno]
            return None

        told = from_first(clear)
        if failures:
            raise failures[0] from failures[0].__cause__
        if told is not None:
            raise _save_error(told[0], OSError(told[1], told[0]))

    def _clear(self, step: int, size: int) -> None:
        """Clear what interrupted saves left; refuse a disk that is full or read-only before anything is written."""
        self._place.put_back()
        self._place.remove_unfinished()
        self._place.make_room(size)
        if step in self._damaged:
            self._keep_as_damaged(step)
        self._place.set_aside(step)

    def _finish(self, step: int) -> None:
        """The rest of a save, in its own thread: wait for the disk, then delete what need not stay."""
        try:
            with quiet_orbax():
                self._checkpointer.wait_until_finished()
            self._place.end(step)
        except Exception as error:
            self._unsaved = self._undo(step, error, agreed=num_processes() == 1)
            self._failures.append(self._unsaved)
            return
        try:
            if is_first():
                self._clean_up()
        except Exception as error:
            message = f"checkpoint of step {step} is saved, but an older one in {self._place} could not be read or deleted"
            self._failures.append(_save_error(f"{message}: {reason(error)}", error))

    def _clean_up(self) -> None:
        """Delete what need not stay; damaged checkpoints are renamed, so that they count for nothing and nothing is lost."""
        self._place.remove_unfinished()
        metrics = self._metrics()
        for bad in self._damaged & set(self.steps()):
            self._keep_as_damaged(bad)
        for old in steps_to_delete(metrics, self._config, self._best):
            self._place.remove_step(old)

    def _keep_as_damaged(self, step: int) -> None:
        self._place.keep_as_damaged(step)
        self._damaged.discard(step)

    def _undo(self, step: int, error: Exception, *, agreed: bool = True) -> SaveError:
        """Leave the folder as it was before the failed save, and say what happened."""
        try:
            if is_first():
                self._place.remove_unfinished()
                self._place.put_back()
            steps = self.steps()
            newest = f"The newest there is step {steps[-1]}" if steps else "There is no earlier one"
        except OSError as trouble:
            newest = f"Nor could the folder be looked through: {reason(trouble)}"
        why = reason(self._place.explain(error))
        failure = _save_error(
            f"checkpoint of step {step} could not be saved in {self._place}: {why}. {newest}; make room or make the folder "
            "writable",
            error,
        )
        failure.agreed = agreed
        return failure

    def _metrics(self) -> dict[int, dict[str, float]]:
        """The metrics of each checkpoint that was not found damaged; raises OSError if one may not be read."""
        metrics = {}
        for step in self.steps():
            try:
                metrics[step] = Manifest.read(self._place, step).metrics
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
