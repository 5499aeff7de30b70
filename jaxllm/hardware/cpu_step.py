"""The CPU probe's trial, run as `python -m jaxllm.hardware.cpu_step`: times a small training step whenever asked.

It prints the loss after a few steps once it is ready, then, for every line it reads, the time of a step.

A two-layer float32 Transformer of width 128 on 64-character rows with an Adam update, data-parallel over the CPU
devices that the environment asks for. It is written in plain JAX, apart from the models room, because it measures the
machine's way with such a step, and must stay the same when models change.
"""

import os
import sys
import time

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

# B batch, T query time, S key time, D width, N heads, H head width, F feed-forward width, V vocabulary
LAYERS, D, N, H, F, T, V = 2, 128, 4, 32, 512, 64, 65
CHECKED_STEPS, TIMED_STEPS = 5, 3


def batch_size() -> int:
    """About twelve rows: the least multiple of the machine's cores from twelve on, the same for every candidate."""
    cores = int(os.environ["JAXLLM_PROBE_CORES"])
    return -(-12 // cores) * cores


def init(key):
    shapes = {"qkv": (D, 3 * N * H), "out": (N * H, D), "up": (D, F), "down": (F, D)}
    keys = iter(jax.random.split(key, 2 + 4 * LAYERS))
    matrix = lambda shape: 0.02 * jax.random.normal(next(keys), shape)  # noqa: E731
    layers = [{name: matrix(shape) for name, shape in shapes.items()} for _ in range(LAYERS)]
    return {"tokens": matrix((V, D)), "positions": matrix((T, D)), "layers": layers}


def norm(x):
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5)


def block(x, layer):
    q, k, v = (y.reshape(*y.shape[:2], N, H) for y in jnp.split(norm(x) @ layer["qkv"], 3, axis=-1))
    logits = jnp.einsum("BTNH,BSNH->BNTS", q, k) * H**-0.5
    weights = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((T, T), bool))[None, None], logits, -1e30))
    x = x + jnp.einsum("BNTS,BSNH->BTNH", weights, v).reshape(x.shape) @ layer["out"]
    return x + jax.nn.gelu(norm(x) @ layer["up"]) @ layer["down"]


def loss(params, tokens):
    x = params["tokens"][tokens] + params["positions"][None]
    for layer in params["layers"]:
        x = block(x, layer)
    logits = norm(x) @ params["tokens"].T
    picked = jnp.take_along_axis(logits, jnp.roll(tokens, -1, axis=1)[..., None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - picked)


def step(params, m, v, tokens):
    value, grads = jax.value_and_grad(loss)(params, tokens)
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
    v = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, v, grads)
    params = jax.tree.map(lambda p, m, v: p - 1e-3 * m / (jnp.sqrt(v) + 1e-8), params, m, v)
    return params, m, v, value


def main() -> None:
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    everywhere, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    params = jax.device_put(init(jax.random.key(0)), everywhere)
    tokens = jax.device_put(jax.random.randint(jax.random.key(1), (batch_size(), T), 0, V), split)
    state = (params, jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))
    run = jax.jit(step, out_shardings=everywhere, donate_argnums=(0, 1, 2))

    def steps(count: int) -> float:
        nonlocal state
        value = jnp.nan
        for _ in range(count):
            *state, value = run(*state, tokens)
        return float(value)

    print(steps(CHECKED_STEPS), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        steps(TIMED_STEPS)
        print((time.perf_counter() - start) / TIMED_STEPS, flush=True)


if __name__ == "__main__":
    main()
