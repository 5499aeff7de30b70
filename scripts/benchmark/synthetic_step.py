"""A worker of train_gpu.py: training steps of a recipe on random tokens that lie on the device, timed.

python scripts/benchmark/synthetic_step.py RECIPE [--field value ...]
"""

import json
import sys

import jax
import jax.numpy as jnp
from turns import serve

from jaxllm.cli.overrides import override
from jaxllm.data import DataConfig
from jaxllm.hardware import device_kind, peak_flops, set_up
from jaxllm.models import TransformerConfig, train_flops_per_token
from jaxllm.recipe import find_recipe
from jaxllm.recipe.program import Program
from jaxllm.recipe.resolve import FromData, resolved
from jaxllm.sharding import make_mesh
from jaxllm.training import init_state


def main(source: str, *overrides: str) -> None:
    set_up()
    recipe = override(find_recipe(source), list(overrides))
    model, data = recipe.model, recipe.data
    if not isinstance(model, TransformerConfig) or not isinstance(data, DataConfig) or model.vocab_size is None:
        raise SystemExit("a model of one stack over text is needed, and its model.vocab_size")
    recipe, seq_len = resolved(recipe, FromData.of(model), recipe.steps), data.seq_len
    program = Program(recipe, make_mesh(recipe.mesh, recipe.batch_size // recipe.accumulate))
    batch = {name: _random(name, field, model.vocab_size) for name, field in program.abstract_batch.items()}
    train_step = program.compile_step()
    state = init_state(program.model, program.optimizer[0], program.mesh, program.key, program.abstract)
    kind = jax.devices()[0].device_kind
    flops = train_flops_per_token(program.model.config, seq_len) * program.tokens_per_step
    peak = peak_flops(kind, model.compute_dtype) if device_kind(kind) else None

    def steps(count: int) -> None:
        nonlocal state
        metrics = None
        for _ in range(count):
            state, metrics = train_step(state, batch)
        jax.block_until_ready((state, metrics))

    steps(3)
    about = {"flops_per_step": flops, "peak_flops": peak, "device": kind, "tokens_per_step": program.tokens_per_step}
    print(json.dumps(about | {"attention_kernel": getattr(program.model.config, "attention_kernel", None)}), flush=True)
    serve(steps)


def _random(name: str, field: jax.ShapeDtypeStruct, vocabulary: int) -> jax.Array:
    """What a full row of one document has in this field."""
    rows, length = field.shape
    if name in ("tokens", "targets"):
        values = jax.random.randint(jax.random.key(len(name)), field.shape, 0, vocabulary, field.dtype)
    elif name == "positions":
        values = jnp.broadcast_to(jnp.arange(length, dtype=field.dtype), (rows, length))
    else:  # one document, every token counted
        values = jnp.ones(field.shape, field.dtype)
    return jax.device_put(values, field.sharding)


if __name__ == "__main__":
    main(*sys.argv[1:])
