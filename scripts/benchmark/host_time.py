"""What a step costs outside the device: a run of 24 small unrolled layers, beside its compiled step alone.

python scripts/benchmark/host_time.py
"""

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import jax
from record import spread, write_record

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.hardware import set_up
from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe, assemble, fit
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, LogConfig, init_state, read_metrics

STEPS, ROUNDS = 400, 5


def toy() -> Recipe:
    return Recipe(
        name="host_time",
        steps=STEPS,
        batch_size=4,
        model=TransformerConfig(num_layers=24, num_heads=2, embed_dim=32, context_len=16, layer_loop="unroll"),
        data=DataConfig(dataset="tiny_shakespeare", seq_len=16, test_split=None, tokenizer=TokenizerConfig(kind="characters")),
        mesh=MeshConfig(data=1),
        evaluate=EvaluateConfig(every=10 * STEPS, batches=1),
        checkpoint=CheckpointConfig(every=10 * STEPS),
        log=LogConfig(every=10, tensorboard=False),
    )


def main() -> None:
    set_up()
    recipe = toy()
    run, alone, dispatch = [], [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            fit(dataclasses.replace(recipe, run_dir=f"{folder}/run"))
            lines = [line for line in read_metrics(Path(folder) / "run") if "step_seconds" in line]
        run.append(1e3 * statistics.median(line["step_seconds"] for line in lines[len(lines) // 4 :]))
        device, host = _compiled_step(recipe)
        alone.append(1e3 * device)
        dispatch.append(1e3 * host)
    results = {
        "run_step_ms": spread(run),
        "compiled_step_ms": spread(alone),
        "host_ms": spread([whole - device for whole, device in zip(run, alone, strict=True)]),
        "dispatch_ms": spread(dispatch),
    }
    for name, value in results.items():
        print(f"{name:<18} min {value['min']:8.3f}  median {value['median']:8.3f}  max {value['max']:8.3f}")
    notes = (
        f"{ROUNDS} rounds of {STEPS} steps on one device: a step of `fit` with its input pipeline and log, its median; "
        "the compiled step alone on one batch, called again and again and awaited at the end; host_ms is their difference. "
        "dispatch_ms: until a call returns, the device idle before."
    )
    print(write_record("host_time", recipe, results, notes))


def _compiled_step(recipe: Recipe) -> tuple[float, float]:
    """Seconds of a step on the device, and until the call of an idle device returns."""
    job = assemble(recipe)
    step, batch = job.compile_step(), next(job.batches(0))
    state = init_state(job.model, job.optimizer[0], job.mesh, job.key, job.abstract)
    for _ in range(20):
        state, metrics = step(state, batch)
    jax.block_until_ready(state)
    start = time.perf_counter()
    for _ in range(STEPS):
        state, metrics = step(state, batch)
    jax.block_until_ready((state, metrics))
    device = (time.perf_counter() - start) / STEPS
    calls = []
    for _ in range(100):
        start = time.perf_counter()
        state, metrics = step(state, batch)
        calls.append(time.perf_counter() - start)
        jax.block_until_ready((state, metrics))
    return device, statistics.median(calls)


if __name__ == "__main__":
    main()
