"""Loss, perplexity and accuracy of a model over a whole split of the data."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

EvalStep = Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]

BATCHES_IN_FLIGHT = 8


def perplexity_of(loss: float) -> float:
    """exp(loss), of nats a token; infinite where a float cannot hold it."""
    return math.exp(loss) if loss < 700 else math.inf


def evaluate(
    eval_step: EvalStep,
    params: Any,
    batches: Iterable[Mapping[str, Any]],
    *,
    unit: str = "tokens",
    perplexity: bool = True,
    accuracy: bool = False,
    keep: Callable[[Mapping[str, Any]], None] | None = None,
) -> dict[str, float]:
    """Mean cross-entropy over every target of a split, its exponential, and the share of targets that are the most likely.

    The mean is Σ loss_sum / Σ weight over all batches, not a mean of batch means: a last batch that is not full,
    padding and packing change nothing. Sums are kept in float64.

        results = evaluate(eval_step, state.params, batches)   # {"loss": 1.87, "perplexity": 6.5, "tokens": 111540.0}

    Args:
      eval_step: `eval_step(params, batch)` returns `loss_sum`, the weighted sum of the losses, `weight`, the sum of the
        weights, and for accuracy `correct`, the weighted count.
      unit: what the targets are; the result has their number under this name.
      keep: gets the `predictions` of each batch that eval_step returns.
    """
    names = ("loss_sum", "weight", "correct") if accuracy else ("loss_sum", "weight")
    kept = names if keep is None else (*names, "predictions")
    sums, in_flight = dict.fromkeys(names, 0.0), []

    def collect() -> None:
        for metrics in jax.device_get(in_flight):
            for name in names:
                sums[name] += float(metrics[name])
            if keep is not None:
                keep(metrics["predictions"])
        in_flight.clear()

    for batch in batches:
        metrics = eval_step(params, batch)
        in_flight.append({name: metrics[name] for name in kept})
        if len(in_flight) >= BATCHES_IN_FLIGHT:
            collect()
    collect()
    if sums["weight"] == 0:
        raise ValueError(
            "An evaluation needs at least one token with a target: got none. Is the split empty, or shorter than one "
            "sequence? `jaxllm data show` prints what it holds."
        )
    loss = sums["loss_sum"] / sums["weight"]
    results = {"loss": loss}
    if perplexity:
        results["perplexity"] = perplexity_of(loss)
    if accuracy:
        results["accuracy"] = sums["correct"] / sums["weight"]
    return results | {unit: sums["weight"]}
