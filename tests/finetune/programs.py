"""The models that every method is tried on, and one compiled program for each of them and for each method."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxllm.finetune import adapt, begin_params
from jaxllm.finetune.method import adapted_loss, wrapped
from jaxllm.models import ModelConfig, VisionConfig, make_model, partition, path_of
from jaxllm.sharding import MeshConfig, batch_sharding, make_mesh
from jaxllm.training import (
    LossConfig,
    OptimizerConfig,
    TrainState,
    abstract_state,
    lower_train_step,
    make_loss,
    make_optimizer,
    make_train_step,
)
from tests.models.options import tiny, tiny_encoder, tiny_pair
from tests.models.programs import parameters

B, T, STEPS = 8, 12, 3
SMALL: dict[str, Any] = dict(embed_dim=16, ffw_dim=24, head_dim=4, init_std=0.2)
FAMILIES: dict[str, Any] = {
    "gpt": tiny("gpt2", **SMALL),
    "llama": tiny("llama", **SMALL, norm_barrier=False),
    "bert": tiny_encoder("bert", **SMALL),
    "t5": tiny_pair("t5"),
    "vit": VisionConfig(
        image_size=8, patch_size=4, channels=1, num_labels=5, encoder=tiny_encoder("alibi_bert", **SMALL, position="none")
    ),
}


def inputs_of(config: ModelConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    if isinstance(config, VisionConfig):
        return {"images": rng.normal(size=(4, 8, 8, 1)).astype(np.float32)}
    tokens = {"tokens": rng.integers(1, 48, (4, T)).astype(np.int32)}
    return tokens | ({"decoder_tokens": rng.integers(1, 48, (4, 7)).astype(np.int32)} if hasattr(config, "decoder") else {})


@functools.cache
def fresh(method: Any, config: ModelConfig) -> Any:
    """A model's parameters with those that a method begins with."""
    model = adapt(make_model(config), method)
    return jax.jit(lambda base: begin_params(model, jax.random.key(1), base))(parameters(config))


def moved(method: Any, params: Any, seed: int = 0) -> Any:
    """Every number that learns moved a little."""
    rng = np.random.default_rng(seed)

    def change(keys: Any, leaf: Any) -> Any:
        noise = rng.normal(0, 0.05, leaf.shape).astype(np.float32)
        return leaf + noise * (leaf != 0 if padded(keys) else 1) if method.learns(path_of(keys)) else leaf

    def padded(keys: Any) -> bool:
        """Zeros of layers with a smaller rank stay zeros."""
        return "/lora/a" in path_of(keys) and bool(getattr(method, "rank_patterns", ()) or getattr(method, "layers", None))

    return jax.tree_util.tree_map_with_path(change, params)


@functools.cache
def forward(method: Any, config: ModelConfig) -> Any:
    """`f(params, inputs) -> logits`, compiled; without a method where that is None."""
    model = make_model(config) if method is None else adapt(make_model(config), method)
    return jax.jit(lambda params, inputs: model.apply({"params": params}, **inputs).logits)


def make_batch(number: int) -> dict[str, np.ndarray]:
    """Two documents a row, padding behind them."""
    rng = np.random.default_rng(number)
    tokens = rng.integers(0, 48, (B, T + 1)).astype(np.int32)
    first, end = rng.integers(2, 6, (B, 1)), rng.integers(8, T + 1, (B, 1))
    time = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T))
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "loss_weights": (time < end).astype(np.float32),
        "positions": np.where(time < first, time, time - first).astype(np.int32),
        "segment_ids": np.where(time < first, 1, 2).astype(np.int32) * (time < end),
    }


def first_state(method: Any, config: ModelConfig, mesh: Any, optimizer: Any) -> tuple[TrainState, TrainState]:
    """The state that a run begins with, and its shapes."""
    abstract = abstract_state(adapt(make_model(config), method), optimizer, mesh, learns=method.learns)
    params, frozen = partition(moved(method, fresh(method, config)), method.learns)
    state = TrainState(jnp.zeros((), jnp.int32), params, jax.jit(optimizer.init)(params), frozen)
    state = jax.device_get(state)
    return jax.tree.map(lambda value, leaf: jax.device_put(value, leaf.sharding), state, abstract), abstract


def train(
    method: Any, config: ModelConfig, sizes: MeshConfig | None = None, accumulate: int = 1, **optimizer: Any
) -> tuple[np.ndarray, TrainState, TrainState]:
    """Losses of a few steps, the state before them (on the host) and after them."""
    mesh = make_mesh(sizes or MeshConfig(data=1), B // accumulate)
    settings = OptimizerConfig(learning_rate=0.01, **optimizer)
    rule, schedule = make_optimizer(settings, STEPS, wrapped(method, STEPS))
    state, abstract = first_state(method, config, mesh, rule)
    before = jax.device_get(state)
    loss = adapted_loss(method, make_loss(adapt(make_model(config), method), LossConfig()))  # type: ignore[arg-type]
    step = make_train_step(loss, rule, schedule, key=jax.random.key(0), accumulate=accumulate, dropout=method.dropout > 0)
    program = lower_train_step(step, abstract, jax.eval_shape(lambda: make_batch(0)), mesh).compile()
    losses = []
    for number in range(STEPS):
        state, metrics = program(state, jax.device_put(make_batch(number), batch_sharding(mesh)))
        losses.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    return np.asarray(losses), before, state


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {path_of(keys): leaf.shape for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}
