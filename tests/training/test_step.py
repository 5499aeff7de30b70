"""The step as a whole: the same losses on every mesh, and whatever cuts a batch changes nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxllm.models import Transformer, TransformerConfig
from jaxllm.sharding import MeshConfig, batch_sharding, make_mesh
from jaxllm.training import (
    LossConfig,
    OptimizerConfig,
    abstract_state,
    cross_entropy,
    evaluation_params,
    init_state,
    lower_train_step,
    make_loss,
    make_optimizer,
    make_train_step,
)
from tests.quick import some

B, T, V = 8, 16, 64
MODEL = TransformerConfig(vocab_size=V, context_len=T, num_layers=2, embed_dim=64, num_heads=8, init_std=0.1)


def make_batch(step: int) -> dict[str, np.ndarray]:
    """Packed rows with padding, so that weights differ between rows and devices."""
    random = np.random.default_rng(step)
    tokens = random.integers(0, V, (B, T + 1)).astype(np.int32)
    lengths = random.integers(4, T + 1, B)[:, None]
    time = np.arange(T, dtype=np.int32)[None]
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "loss_weights": (time < lengths).astype(np.float32),
        "positions": np.broadcast_to(time, (B, T)).copy(),
        "segment_ids": (time < lengths).astype(np.int32),
    }


ONE_DEVICE, ADAMW, WHOLE = MeshConfig(data=1), OptimizerConfig(), LossConfig()


def run(steps=10, *, mesh=ONE_DEVICE, model=MODEL, optimizer=ADAMW, loss=WHOLE, **options):
    """Losses of a short run, and its last state."""
    mesh = make_mesh(mesh, B)
    transformer = Transformer(model)
    transform, schedule = make_optimizer(optimizer, steps)
    abstract = abstract_state(transformer, transform, mesh, optimizer.state_memory)
    key = jax.random.key(0)
    state = init_state(transformer, transform, mesh, key, abstract)
    step = make_train_step(make_loss(transformer, loss), transform, schedule, key=key, dropout=model.dropout > 0, **options)
    compiled = lower_train_step(step, abstract, jax.eval_shape(lambda: make_batch(0)), mesh).compile()
    losses = []
    for number in range(steps):
        state, metrics = compiled(state, jax.device_put(make_batch(number), batch_sharding(mesh)))
        losses.append(float(metrics["loss"]))
    return np.array(losses), state


@pytest.fixture(scope="module")
def one_device():
    return run()


@pytest.mark.parametrize(
    ("sizes", "explicit"),
    some(
        [(sizes, explicit) for sizes in ((8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)) for explicit in (False, True)],
        [((8, 1, 1), False), ((1, 8, 1), True), ((1, 1, 8), False), ((2, 2, 2), True)],
    ),
    ids=lambda value: {False: "auto", True: "explicit"}[value] if isinstance(value, bool) else str(value),
)
def test_same_losses_on_every_mesh(one_device, sizes, explicit):
    data, fsdp, tensor = sizes
    losses, state = run(mesh=MeshConfig(data=data, fsdp=fsdp, tensor=tensor, explicit=explicit))
    np.testing.assert_allclose(losses, one_device[0], atol=1e-5, rtol=0)
    moment = state.opt_state[1][0].mu["layers"]["ffw"]["up"]["kernel"]
    assert moment.sharding.shard_shape(moment.shape) == (2, 64 // fsdp, 256 // tensor)


def test_the_run_learns(one_device):
    """Random targets, but the same ones in each step's rows would be memorized: the loss at least leaves log V."""
    losses, _ = run(steps=30, optimizer=OptimizerConfig(learning_rate=3e-3))
    assert losses[0] == pytest.approx(np.log(V), abs=0.6)
    assert losses[-5:].mean() < losses[:5].mean()


def test_accumulation_changes_nothing():
    """With SGD, whose parameters are a smooth function of the gradients; Adam's first steps are their signs."""
    sgd = OptimizerConfig(name="sgd", learning_rate=0.1)
    (whole, whole_state), (parts, parts_state) = run(optimizer=sgd), run(optimizer=sgd, accumulate=4)
    np.testing.assert_allclose(parts, whole, atol=2e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), parts_state.params, whole_state.params)


@pytest.mark.slow
def test_accumulation_on_a_mesh_changes_nothing(one_device):
    losses, _ = run(accumulate=2, mesh=MeshConfig(data=2, fsdp=2, explicit=True))
    np.testing.assert_allclose(losses, one_device[0], atol=1e-5)


@pytest.mark.parametrize("chunk", some([1, 4, 16], [4]))
def test_chunked_cross_entropy_changes_nothing(one_device, chunk):
    losses, _ = run(loss=LossConfig(chunk=chunk))
    np.testing.assert_allclose(losses, one_device[0], atol=2e-6)


def test_cross_entropy_against_numpy():
    random = np.random.default_rng(0)
    logits, targets = random.normal(size=(2, 5, 7)).astype(np.float32) * 3, random.integers(0, 7, (2, 5)).astype(np.int32)
    weights = random.random((2, 5)).astype(np.float32)
    sums = cross_entropy(jnp.asarray(logits), jnp.asarray(targets), jnp.asarray(weights), LossConfig())
    log_z = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    chosen = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    assert sums.cross_entropy == pytest.approx((weights * (log_z - chosen)).sum(), rel=1e-6)
    assert sums.z == pytest.approx((weights * log_z**2).sum(), rel=1e-6)
    assert sums.weight == pytest.approx(weights.sum(), rel=1e-6)


def test_z_loss_pulls_the_normalizer_down(one_device):
    """log Z starts near log V; with a heavy z-loss it moves toward 0, and the reported loss stays cross-entropy alone."""
    _, with_z = run(loss=LossConfig(z_loss=1.0), steps=10)
    model = Transformer(MODEL)
    batch = jax.tree.map(jnp.asarray, make_batch(99))
    z = [make_loss(model, LossConfig())(state.params, batch, None).z for state in (one_device[1], with_z)]
    assert z[1] < 0.9 * z[0]


def test_dropout_is_a_function_of_the_step_on_any_mesh(one_device):
    model = dataclasses.replace(MODEL, dropout=0.2)
    losses = run(steps=3, model=model)[0]
    assert abs(losses[0] - one_device[0][0]) > 1e-3
    np.testing.assert_allclose(
        run(steps=3, model=model, mesh=MeshConfig(data=2, tensor=2, explicit=True))[0], losses, atol=1e-5
    )


@pytest.mark.parametrize("policy", ["skip", "stop"])
def test_nonfinite_updates_are_skipped_when_asked(policy):
    transformer, mesh = Transformer(MODEL), make_mesh(MeshConfig(data=1))
    transform, schedule = make_optimizer(OptimizerConfig(), 10)
    state = init_state(transformer, transform, mesh, jax.random.key(0), abstract_state(transformer, transform, mesh))

    def broken(params, batch, key):
        return jax.tree.map(lambda x: x * jnp.nan, make_loss(transformer, LossConfig())(params, batch, key))

    step = make_train_step(broken, transform, schedule, key=jax.random.key(0), on_nonfinite=policy)
    new, metrics = jax.jit(step)(state, make_batch(0))
    assert not jnp.isfinite(metrics["loss"]) and new.step == 1
    kept = jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), new.params, state.params)
    assert all(jax.tree.leaves(kept)) == (policy == "skip")


def test_average_of_parameters_is_the_recurrence():
    decay = 0.9
    _, state = run(steps=1, optimizer=OptimizerConfig(ema=decay))
    mesh = make_mesh(MeshConfig(data=1))
    transform, _ = make_optimizer(OptimizerConfig(ema=decay), 1)
    start = init_state(
        Transformer(MODEL), transform, mesh, jax.random.key(0), abstract_state(Transformer(MODEL), transform, mesh)
    )
    want = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, start.params, state.params)
    got = evaluation_params(state.params, state.opt_state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, want)
    assert evaluation_params(state.params, optax.EmptyState()) is state.params


@pytest.mark.parametrize("name", some(["adamw", "adafactor", "lion", "muon", "sgd"], ["adamw", "muon"]))
def test_every_optimizer_learns_on_a_mesh(name):
    """One batch, learnt by heart; parameters and moments split over fsdp and tensor."""
    rates = {"adamw": 3e-3, "adafactor": 1e-2, "lion": 1e-3, "muon": 1e-2, "sgd": 0.1}
    config = OptimizerConfig(name=name, learning_rate=rates[name], momentum=0.9)
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2, explicit=name != "muon"))  # Optax's muon has no explicit layouts
    transformer = Transformer(MODEL)
    transform, schedule = make_optimizer(config, 20)
    abstract = abstract_state(transformer, transform, mesh)
    state = init_state(transformer, transform, mesh, jax.random.key(0), abstract)
    step = make_train_step(make_loss(transformer, LossConfig()), transform, schedule, key=jax.random.key(0))
    compiled = lower_train_step(step, abstract, jax.eval_shape(lambda: make_batch(0)), mesh).compile()
    batch = jax.device_put(make_batch(0), batch_sharding(mesh))
    losses = []
    for _ in range(20):
        state, metrics = compiled(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.3
