"""One run of a sweep, in a folder of its own: begun, or gone on with where it stopped."""

import dataclasses
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax

from jaxllm.hardware.peak_memory import shared_process
from jaxllm.recipe import Recipe, fit, is_run_folder
from jaxllm.recipe.fit import OnEvaluation
from jaxllm.sweep.outcome import is_whole
from jaxllm.training import NonFiniteLoss

PRUNED = "the sweep"
"""Why a run ended that is not worth going on with; its own last words name it as what stopped it."""
Ending = Literal["complete", "pruned", "diverged", "out of memory", "refused", "stopped"]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    ending: Ending
    """diverged: loss or gradient became infinite; refused: the recipe is impossible; stopped: by a signal or the cloud."""
    said: str | None = None
    """The error, or what stopped it."""
    seconds: float


def attempt(recipe: Recipe, run_dir: Path, command: str, on_evaluation: OnEvaluation | None = None) -> Attempt:
    """Trains the recipe there, unless that is done.

    Raises:
      OSError: what no other run of the sweep would do better with, such as a full disk.
    """
    begin = time.perf_counter()

    def ended(ending: Ending, said: str | None = None) -> Attempt:
        return Attempt(ending=ending, said=said, seconds=time.perf_counter() - begin)

    if is_whole(run_dir):
        return ended("complete")
    if run_dir.is_dir() and not is_run_folder(run_dir):  # killed before its recipe was written
        shutil.rmtree(run_dir)
    try:
        with shared_process():
            fitted = fit(dataclasses.replace(recipe, run_dir=str(run_dir)), command=command, on_evaluation=on_evaluation)
    except NonFiniteLoss as error:
        return ended("diverged", str(error))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return ended("out of memory", str(error).splitlines()[0])
    except ValueError as error:
        return ended("refused", str(error))
    if fitted.ended in ("finished", "patience"):
        return ended("complete")
    return ended("pruned") if fitted.ended == PRUNED else ended("stopped", fitted.ended)
