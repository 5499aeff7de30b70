"""Loss and perplexity of a model over a whole split of the data."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

EvalStep = Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]

BATCHES_IN_FLIGHT = 8


def evaluate(eval_step: EvalStep, params: Any, batches: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Mean cross-entropy over every target of a split, and its exponential.

    The mean is Σ loss_sum / Σ weight over all batches, not a mean of batch means: a last batch that is not full,
    padding and packing change nothing. Sums are kept in float64.

        results = evaluate(eval_step, state.params, batches)   # {"loss": 1.87, "perplexity": 6.5, "tokens": 111540.0}

    Args:
      eval_step: `eval_step(params, batch)` returns `loss_sum`, the weighted sum of the losses, and `weight`, the sum of
        the weights.
    """
    loss_sum, weight, in_flight = 0.0, 0.0, []

    def collect() -> None:
        nonlocal loss_sum, weight
        for metrics in jax.device_get(in_flight):
            loss_sum += float(metrics["loss_sum"])
            weight += float(metrics["weight"])
        in_flight.clear()

    for batch in batches:
        metrics = eval_step(params, batch)
        in_flight.append({name: metrics[name] for name in ("loss_sum", "weight")})
        if len(in_flight) >= BATCHES_IN_FLIGHT:
            collect()
    collect()
    if weight == 0:
        raise ValueError(
            "An evaluation needs at least one token with a target: got none. Is the split empty, or shorter than one "
            "sequence? `jaxllm data show` prints what it holds."
        )
    loss = loss_sum / weight
    return {"loss": loss, "perplexity": math.exp(loss) if loss < 700 else math.inf, "tokens": weight}
