"""Every mesh over eight devices computes what one device computes: losses and gradient norms of five steps.

A few meshes are always tested. All of them, in Auto and Explicit mode, dense and with experts, with and without accumulation
and rematerialization, are 1,344 steps to compile, some 40 minutes on two quiet cores:

    pytest -m slow -n 2 tests/training/test_meshes.py
"""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest

from jaxllm.models import ExpertsConfig, Transformer, TransformerConfig
from jaxllm.sharding import MeshConfig, batch_sharding, make_mesh, use_mesh
from jaxllm.sharding.axes import MESH_AXES
from jaxllm.training import (
    LossConfig,
    OptimizerConfig,
    TrainState,
    abstract_state,
    init_state,
    lower_train_step,
    make_loss,
    make_optimizer,
    make_train_step,
)
from tests.quick import some

B, T, V, STEPS = 16, 16, 64, 5
SIZE = dict(vocab_size=V, context_len=T, embed_dim=32, num_heads=8, num_kv_heads=4, ffw_dim=64, init_std=0.1)
KIND = dict(norm="rms_norm", position="rotary", activation="swiglu", bias=False, layer_loop="scan")
MESHES = [
    {axis: size for axis, size in zip(MESH_AXES, sizes, strict=True) if size > 1}
    for sizes in itertools.product((1, 2, 4, 8), repeat=len(MESH_AXES))
    if np.prod(sizes) == 8
]
FEW = (
    {"context": 8},
    {"replica": 2, "fsdp": 2, "tensor": 2},
    {"expert": 4, "context": 2},
    {"data": 2, "context": 2, "tensor": 2},
    {"stage": 2, "expert": 2, "tensor": 2},
)
CUTS = {
    "whole": {"accumulate": 1, "remat": "none", "chunk": None},
    "halves": {"accumulate": 2, "remat": "none", "chunk": None},
    "pieces": {"accumulate": 1, "remat": "minimal", "chunk": 2},
    "parts": {"accumulate": 2, "remat": "block", "chunk": 8},
}
"""Ways to compute a batch; as pieces a device has fewer time steps than there are chunks."""


def name(mesh: dict[str, int]) -> str:
    return "-".join(f"{axis}{size}" for axis, size in mesh.items())


def make_batch(number: int) -> dict[str, np.ndarray]:
    """Two documents a row, and padding behind them."""
    random = np.random.default_rng(number)
    tokens = random.integers(0, V, (B, T + 1)).astype(np.int32)
    first, end = random.integers(2, 6, (B, 1)), random.integers(8, T + 1, (B, 1))
    time = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T))
    segments = np.where(time < first, 1, 2) * (time < end)
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "loss_weights": (time < end).astype(np.float32),
        "positions": np.where(time < first, time, time - first).astype(np.int32),
        "segment_ids": segments.astype(np.int32),
    }


def config(num_layers: int, experts: ExpertsConfig | None, remat: str = "none") -> TransformerConfig:
    return TransformerConfig(**SIZE, **KIND, num_layers=num_layers, remat=remat, experts=experts)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=4)
def start(mesh: MeshConfig, num_layers: int, experts: ExpertsConfig | None) -> tuple[TrainState, TrainState]:
    """The first state, computed on this mesh, and its abstract one."""
    model, devices = Transformer(config(num_layers, experts)), make_mesh(mesh)
    optimizer, _ = make_optimizer(OptimizerConfig(), STEPS)
    abstract = abstract_state(model, optimizer, devices)
    return jax.device_get(init_state(model, optimizer, devices, jax.random.key(0), abstract)), abstract


def run(mesh: MeshConfig, num_layers: int, experts: ExpertsConfig | None, cut: str) -> np.ndarray:
    """[STEPS, 2]: losses and gradient norms."""
    options = CUTS[cut]
    model = Transformer(config(num_layers, experts, options["remat"]))
    devices = make_mesh(mesh, B // options["accumulate"])
    optimizer, schedule = make_optimizer(OptimizerConfig(), STEPS)
    first, abstract = start(mesh, num_layers, experts)
    state = jax.tree.map(lambda value, leaf: jax.device_put(value, leaf.sharding), first, abstract)
    loss = make_loss(model, LossConfig(chunk=options["chunk"], z_loss=1e-3))
    step = make_train_step(loss, optimizer, schedule, key=jax.random.key(0), accumulate=options["accumulate"])
    compiled = lower_train_step(step, abstract, jax.eval_shape(lambda: make_batch(0)), devices).compile()
    found = []
    for number in range(STEPS):
        state, metrics = compiled(state, jax.device_put(make_batch(number), batch_sharding(devices)))
        found.append((float(metrics["loss"]), float(metrics["grad_norm"])))
    return np.array(found)


@functools.cache
def one_device(num_layers: int, experts: ExpertsConfig | None) -> np.ndarray:
    return run(MeshConfig(data=1), num_layers, experts, cut="whole")


def check(mesh: dict[str, int], explicit: bool, experts: bool, cut: str) -> None:
    # The balance of experts is that of each part of a batch: no sum over parts, so it is left out where there are some.
    balance = 0.0 if CUTS[cut]["accumulate"] > 1 else 0.1
    mixture = ExpertsConfig(num_experts=8, top_k=2, load_balance=balance) if experts else None
    layers = max(4, mesh["stage"]) if "stage" in mesh else 2
    got = run(MeshConfig(**{"data": 1, **mesh}, explicit=explicit), layers, mixture, cut)  # type: ignore[arg-type]
    np.testing.assert_allclose(got, one_device(layers, mixture), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("experts", some([False, True], [True]), ids=["dense", "experts"])
@pytest.mark.parametrize("mesh", some(FEW, FEW[3:]), ids=name)
def test_a_few_meshes(mesh, experts):
    check(mesh, explicit=False, experts=experts, cut="pieces" if "expert" in mesh else "parts")


@pytest.mark.parametrize(
    ("experts", "cut"), some([(False, "pieces"), (True, "parts")], [(False, "pieces")]), ids=["dense", "experts"]
)
def test_an_explicit_mesh(experts, cut):
    check({"fsdp": 2, "context": 2, "tensor": 2}, explicit=True, experts=experts, cut=cut)


@pytest.mark.slow
def test_dropout_in_stages_is_the_same_in_both_modes():
    """The key comes to the stages from outside of them."""
    model = Transformer(dataclasses.replace(config(2, None), dropout=0.5))
    loss, found = make_loss(model, LossConfig()), []
    for explicit in (False, True):
        mesh = MeshConfig(data=1, stage=2, tensor=2, explicit=explicit)
        (first, abstract), devices = start(mesh, 2, None), make_mesh(mesh, B)
        params = jax.tree.map(lambda value, leaf: jax.device_put(value, leaf.sharding), first.params, abstract.params)
        batch = jax.device_put(make_batch(0), batch_sharding(devices))
        with use_mesh(devices):
            found += [float(jax.jit(loss)(params, batch, key).cross_entropy) for key in (None, jax.random.key(1))]
    np.testing.assert_allclose(found[:2], found[2:], rtol=1e-5)
    assert abs(found[1] / found[0] - 1) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("experts", [False, True], ids=["dense", "experts"])
@pytest.mark.parametrize("explicit", [False, True], ids=["auto", "explicit"])
@pytest.mark.parametrize("mesh", MESHES, ids=name)
def test_every_mesh(mesh, explicit, experts, cut):
    check(mesh, explicit, experts, cut)
