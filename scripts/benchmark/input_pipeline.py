"""Tokens a second of the input pipeline alone, and how many times that is what a recipe's CPU step consumes.

python scripts/benchmark/input_pipeline.py            # after train_cpu.py, whose newest record says what the step consumes
"""

import argparse
import time

import numpy as np
from record import newest_record, spread, write_record

from jaxllm.data import DataConfig, open_data, train_batches
from jaxllm.recipe import Recipe, find_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipe", default="configs/shakespeare_char.py")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()

    recipe = find_recipe(options.recipe)
    if not isinstance(recipe.data, DataConfig):
        raise SystemExit(f"a recipe of text is needed: {recipe.name} has images")
    step = newest_record("train_cpu", recipe.name)
    if step is None:
        raise SystemExit(f"no record of train_cpu for {recipe.name}: run scripts/benchmark/train_cpu.py first")
    step_ms = step["results"]["jaxllm_step_ms"]["min"]
    consumed = 1e3 * recipe.batch_size * recipe.data.seq_len / step_ms

    speeds = tokens_per_second(recipe, recipe.data, options.seconds, options.rounds)
    median = float(np.median(speeds))
    results = {
        "tokens_per_second": spread(speeds),
        "step_consumes_tokens_per_second": consumed,
        "times_what_the_step_consumes": median / consumed,
    }
    print(f"{median:,.0f} tokens/s, {median / consumed:.0f} times the {consumed:,.0f} of the fastest step of {step_ms:.1f} ms")
    notes = (
        "Batches drawn from `train_batches` as `jaxllm train` does, nothing done with them; all positions, padding left out. "
        f"The step is the fastest round of the newest train_cpu record, {step['date']}."
    )
    print(write_record("input_pipeline", recipe, results, notes))


def tokens_per_second(recipe: Recipe, data: DataConfig, seconds: float, rounds: int) -> list[float]:
    """Tokens with a loss weight, a second, in each round."""
    batches = train_batches(
        open_data(data, seed=recipe.seed).train,
        batch_size=recipe.batch_size,
        num_workers=recipe.data.num_workers,
        prefetch=recipe.data.prefetch,
    )
    next(batches)
    speeds = []
    for _ in range(rounds):
        tokens, start, now = 0, time.perf_counter(), time.perf_counter()
        while now < start + seconds:
            tokens += int(np.count_nonzero(next(batches)["loss_weights"]))
            now = time.perf_counter()
        speeds.append(tokens / (now - start))
    return speeds


if __name__ == "__main__":
    main()
