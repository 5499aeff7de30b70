"""Whether a pretrained model is still the one that a run began with: what has not learnt is read from it each time."""

from collections.abc import Sequence
from typing import Any

import jax

from jaxllm.checkpoint import Restored
from jaxllm.finetune import unadapted
from jaxllm.finetune.tasks.reference import params_fingerprint
from jaxllm.models import Model, abstract_params, partition, paths
from jaxllm.recipe.loaded import Loaded
from jaxllm.recipe.recipe import Recipe
from jaxllm.training import TrainState

BASE, ADAPTER = "base", "adapter"
"""Names of the fingerprints beside a checkpoint."""


def base_identity(base: Loaded, wanted: TrainState) -> dict[str, str]:
    """By `BASE`, the fingerprint of what a pretrained model gives that does not learn; empty where that is nothing.

    It is of the numbers as they are stored: the same on any mesh, and whatever type the run computes in. Of a base with an
    adapter, what that has learnt counts by itself, since merged it is rounded.

    Args:
      wanted: the run's state, by its paths.
    """
    method: Any = getattr(base.model, "method", None)
    plain, frozen = set(paths(abstract_params(unadapted(base.model))[0])), set(paths(wanted.frozen))

    def counts(path: str) -> bool:
        return path in frozen if path in plain else method.learns(path)

    taken = partition(base.params, counts)[0]
    return {BASE: params_fingerprint(base.model, taken)} if frozen & plain else {}


def adapter_identity(model: Model, given: Any, wanted: TrainState, missing: Sequence[str]) -> dict[str, str]:
    """By `ADAPTER`, the fingerprint of what an adapter to go on with gives that does not learn; empty where that is nothing.

    Args:
      given: parameters to begin with, the adapter's among them.
      missing: paths of those that the pretrained model has not.
    """
    frozen = set(paths(wanted.frozen)) & set(missing)
    taken = partition(given, lambda path: path in frozen)[0]
    return {ADAPTER: params_fingerprint(model, taken)} if jax.tree.leaves(taken) else {}


def check_base(recipe: Recipe, identity: dict[str, str], found: Restored) -> None:
    """Refuses a pretrained model, or an adapter gone on with, that is not the one a checkpoint was trained with, as far as that
    says which it was.

    Args:
      identity: what `base_identity` and `adapter_identity` give now.

    Raises:
      ValueError: another one.
    """
    for name, what in ((BASE, f"pretrained model {recipe.pretrained}"), (ADAPTER, f"adapter {recipe.adapter}")):
        now = identity.get(name)
        if found.meta.get(name, now) != now:
            raise ValueError(
                f"the {what} must be the one that the checkpoint of step {found.step} was trained with, since what has not "
                "learnt is read from it: its parameters have changed since; put the old ones back under that name, or start a "
                "new run in another --run-dir"
            )
