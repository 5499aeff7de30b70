"""AdaLoRA's budget of ranks, as a transformation around an optimizer (arXiv:2303.10512, algorithm 1).

After each update, with p the parameters and g the gradient of the step:

    I = |p · g|        Ī ← β1 Ī + (1 - β1) I        U ← β2 U + (1 - β2) |I - Ī|        s = Ī · U
    score of a triplet = s(e) + mean of s over its column of A + mean of s over its row of B

The budget is the first number of ranks until `tinit`, then falls by a cubic to the last one, which it has `tfinal` steps before
the end. Every `delta_t` steps the triplets of all matrices with the lowest scores, as many as are over the budget, have their e
set to 0; they may come back. From the last choice on those that are 0 stay 0. Steps count from 0, as in peft.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.experimental import multihost_utils
from jaxtyping import Float, Int

from jaxllm.models import overlay, partition, path_of
from jaxllm.sharding import reshard
from jaxllm.sharding.constrain import current_mesh


class Allocation(NamedTuple):
    """When ranks are chosen, and by which averages."""

    tinit: int
    last: int
    """Step of the last choice."""
    delta_t: int
    beta1: float
    beta2: float

    def budgets(self, first: int, final: int) -> list[int]:
        """Ranks left in all matrices together after each step up to the last choice.

        Args:
          first, final: ranks at the beginning and at the end.
        """
        found = []
        for step in range(self.last + 1):
            left = 1 - (step - self.tinit) / (self.last - self.tinit)
            found.append(first if step <= self.tinit else int((first - final) * left**3 + final))
        return found


class BudgetState(NamedTuple):
    count: Int[Array, ""]
    """Steps taken."""
    importance: Any
    """Ī of every number of the triplets."""
    uncertainty: Any
    """U likewise."""
    kept: Any
    """By each e, 1 for the triplets that the last choice of ranks has kept and 0 for the others."""
    rule: Any
    """The state of the optimizer."""


def allocate(
    rule: optax.GradientTransformation, allocation: Allocation, init_rank: int, target_rank: int
) -> optax.GradientTransformation:
    """The update rule with ranks chosen after each update."""

    def init(params: Any) -> BudgetState:
        own, values = _triplets(params), _values(params)
        zeros = jax.tree.map(jnp.zeros_like, own)
        kept = jax.tree.map(jnp.ones_like, values)
        return BudgetState(jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.copy, zeros), kept, rule.init(params))

    def update(grads: Any, state: BudgetState, params: Any = None) -> tuple[Any, BudgetState]:
        updates, inner = rule.update(grads, state.rule, params)
        step, own = state.count, _triplets(params)
        new = jax.tree.map(jnp.add, own, _triplets(updates))
        importance, uncertainty = _averages(allocation, state, new, _triplets(grads))
        scores = _scores(importance, uncertainty)
        count = sum(score.size // init_rank for score in scores.values())
        budget = _budget(allocation, step, init_rank * count, target_rank * count)
        chosen = _choose(scores, init_rank * count - budget)
        last = allocation.last
        chooses = (step > allocation.tinit) & (step < last) & (step % allocation.delta_t == 0) | (step == last)
        kept = jax.tree_util.tree_map_with_path(lambda keys, old: jnp.where(chooses, chosen[_owner(keys)], old), state.kept)
        holds = chooses | (step > last)
        stopped = jax.tree.map(
            lambda update, e, keep: jnp.where(holds & (keep == 0), -e, update), _values(updates), _values(params), kept
        )
        return overlay(updates, stopped), BudgetState(step + 1, importance, uncertainty, kept, inner)

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]


def report(state: Any) -> dict[str, Any]:
    """The rank of every matrix, as the last choice has left it: {"budget": 96, "ranks": {"layers/0/attention/query": 3, ...}}.

    Args:
      state: an optimizer's state, or a `TrainState`.

    Raises:
      ValueError: AdaLoRA has no part in it.
    """
    is_budget = lambda node: isinstance(node, BudgetState)  # noqa: E731
    found = [node for node in jax.tree.leaves(state, is_leaf=is_budget) if is_budget(node)]
    if not found:
        raise ValueError("ranks are reported of a run whose method is AdaLoRA: this state is of another")
    ranks: dict[str, int] = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(_on_host(found[0].kept)):
        module = _owner(keys).removesuffix("/adalora")
        before, _, after = module.rpartition("layers/")
        for layer, rank in enumerate(np.atleast_1d(np.sum(leaf, axis=-1))):
            ranks[f"{before}layers/{layer}/{after}" if leaf.ndim > 1 else module] = int(rank)
    return {"budget": sum(ranks.values()), "ranks": ranks}


def _on_host(tree: Any) -> Any:
    """Arrays in the memory of each process, all of which take part where they are spread."""
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def _triplets(tree: Any) -> Any:
    return partition(tree, lambda path: "/adalora/" in path)[0]


def _values(tree: Any) -> Any:
    return partition(tree, lambda path: path.endswith("/adalora/e"))[0]


def _owner(keys: Any) -> str:
    return path_of(keys).rpartition("/")[0]


def _averages(allocation: Allocation, state: BudgetState, new: Any, grads: Any) -> tuple[Any, Any]:
    """Of importance and uncertainty; as they were from the last choice on."""
    beta1, beta2 = allocation.beta1, allocation.beta2
    goes_on = state.count < allocation.last

    def smoothed(p: Array, g: Array, importance: Array, uncertainty: Array) -> tuple[Array, Array]:
        now = jnp.abs(p * g)
        mean = beta1 * importance + (1 - beta1) * now
        spread = beta2 * uncertainty + (1 - beta2) * jnp.abs(now - mean)
        return jnp.where(goes_on, mean, importance), jnp.where(goes_on, spread, uncertainty)

    pairs = jax.tree.map(smoothed, new, grads, state.importance, state.uncertainty)
    is_pair = lambda node: isinstance(node, tuple)  # noqa: E731
    return tuple(jax.tree.map(lambda pair, place=place: pair[place], pairs, is_leaf=is_pair) for place in (0, 1))  # type: ignore[return-value]


def _scores(importance: Any, uncertainty: Any) -> dict[str, Float[Array, "..."]]:
    """Of each triplet, by module, [*, R]."""
    product = jax.tree.map(jnp.multiply, importance, uncertainty)
    return {
        owner: own["e"]
        + jnp.mean(own["a"], axis=tuple(range(own["e"].ndim - 1, own["a"].ndim - 1)))
        + jnp.mean(own["b"], axis=tuple(range(own["e"].ndim, own["b"].ndim)))
        for owner, own in _modules(product)
    }


def _modules(tree: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """The triplets of each module, by its path and their leaf's name."""
    for name, value in tree.items():
        if name == "adalora":
            yield f"{at}{name}", value
        else:
            yield from _modules(value, f"{at}{name}/")


def _budget(allocation: Allocation, step: Array, first: int, final: int) -> Int[Array, ""]:
    """`Allocation.budgets` in a step: it falls by one at each of these steps."""
    budgets = allocation.budgets(first, final)
    drops = [step for step in range(1, len(budgets)) for _ in range(budgets[step - 1] - budgets[step])]
    return first - jnp.searchsorted(jnp.asarray(drops, jnp.int32), step, side="right").astype(jnp.int32)


def _choose(scores: dict[str, Array], surplus: Array) -> dict[str, Array]:
    """1 for triplets that are kept and 0 for those of the `surplus` lowest scores of all matrices."""
    whole = {owner: _everywhere(score) for owner, score in scores.items()}
    ordered = jnp.sort(jnp.concatenate([jnp.ravel(score) for score in whole.values()]))
    threshold = jnp.where(surplus > 0, ordered[jnp.maximum(surplus - 1, 0)], -jnp.inf)
    return {owner: (score > threshold).astype(jnp.float32) for owner, score in scores.items()}


def _everywhere(x: Array) -> Array:
    """`x` on every device of a mesh that computes."""
    return x if current_mesh() is None else reshard(x, jax.sharding.PartitionSpec())
