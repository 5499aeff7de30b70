"""Attention kernels compute what XLA computes, and none is chosen for what it does not know. Splash attention runs in Pallas's
interpreter; of cuDNN only the call is tested, computed by XLA."""

import dataclasses
import functools
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel
from jax.sharding import PartitionSpec

from jaxllm.models import TransformerConfig, attention_kernel
from jaxllm.models.attention import attend, attention_mask, attention_weights
from jaxllm.models.kernels import Segments, kernel_attention, kernel_takes
from jaxllm.sharding import MeshConfig, balanced_order, make_mesh, map_shards, use_mesh

B, T, N, K, H = 2, 256, 2, 2, 8
CONFIG = TransformerConfig(
    vocab_size=8, num_heads=N, num_kv_heads=K, embed_dim=N * H, position="rotary", layer_loop="scan", context_len=T
)
rng = np.random.default_rng(0)
Q = rng.normal(size=(B, T, N, H)).astype(np.float32)
KEYS, VALUES = (rng.normal(size=(B, K, T, H)).astype(np.float32) for _ in range(2))
SEGMENTS = np.broadcast_to(np.where(np.arange(T) < 100, 1, 2) * (np.arange(T) < 230), (B, T)).astype(np.int32)


def by_xla(config, q, k, v, segments):
    places = jnp.broadcast_to(jnp.arange(T), (B, T))
    mask = attention_mask(places, places, segments, segments, window=config.window, causal=config.causal)
    return attend(attention_weights(q, k, mask, softcap=config.attention_softcap), v)


def by_kernel(config, order, q, k, v, segments):
    return kernel_attention(config, q, k, v, Segments(segments, segments), config.window is not None, order)


def with_gradients(attention, segments):
    """The mean of values where there is a token, and its gradients by queries, keys and values."""
    real = (segments != 0)[:, :, None, None]

    def total(q, k, v):
        out = jnp.where(real, attention(q, k, v, jnp.asarray(segments)), 0.0)
        return jnp.sum(jnp.sin(out)), out

    return jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))


def check(config, order=None, segments=SEGMENTS):
    at = np.arange(T) if order is None else np.asarray(order.places)
    kernel = with_gradients(functools.partial(by_kernel, config, order), segments[:, at])
    (of_q, of_k, of_v), got = jax.device_get(kernel(Q[:, at], KEYS[:, :, at], VALUES[:, :, at]))
    wanted, want = jax.device_get(with_gradients(functools.partial(by_xla, config), segments)(Q, KEYS, VALUES))
    wanted = (wanted[0][:, at], wanted[1][:, :, at], wanted[2][:, :, at], want[:, at])
    for one, other in zip((of_q, of_k, of_v, got), wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.fixture
def interpreted(monkeypatch):
    make = functools.partial(splash_attention_kernel.make_splash_mha, interpret=True)
    monkeypatch.setattr(splash_attention_kernel, "make_splash_mha", make)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    ("mesh", "explicit", "kind"),
    [
        ({"data": 2, "context": 2, "tensor": 2}, True, {}),
        ({"context": 2}, False, {"window": 48, "attention_softcap": 5.0}),
        (None, False, {"window": 48, "causal": False}),
    ],
)
def test_splash_attention_equals_xla(mesh, explicit, kind):
    config = dataclasses.replace(CONFIG, attention_kernel="splash", **kind)
    if mesh is None:
        return check(config)
    with use_mesh(make_mesh(MeshConfig(**{"data": 1, **mesh}, explicit=explicit))):
        check(config, balanced_order(T))


@pytest.mark.usefixtures("interpreted")
def test_splash_attention_equals_xla_inside_a_stage():
    """There the code around goes through one axis of the mesh by hand."""
    config = dataclasses.replace(CONFIG, attention_kernel="splash")
    rows = PartitionSpec("stage")
    with use_mesh(make_mesh(MeshConfig(data=1, stage=2, tensor=2))):
        staged = map_shards(functools.partial(by_kernel, config, None), (rows,) * 4, rows, axes=("stage",))
        got = jax.jit(staged)(Q, KEYS, VALUES, SEGMENTS)
    real = (SEGMENTS != 0)[:, :, None, None]
    np.testing.assert_allclose(
        got * real, jax.jit(functools.partial(by_xla, config))(Q, KEYS, VALUES, SEGMENTS) * real, atol=2e-5
    )


@pytest.mark.usefixtures("interpreted")
def test_gradients_of_keys_and_values_are_summed_into_their_parts():
    config = dataclasses.replace(CONFIG, attention_kernel="splash")
    with use_mesh(make_mesh(MeshConfig(data=1, context=2))):
        both = with_gradients(functools.partial(by_kernel, config, None), SEGMENTS)
        program = both.lower(Q, KEYS, VALUES).as_text()
    assert program.count("stablehlo.reduce_scatter") == 2
    sums = re.findall(r"stablehlo.all_reduce.*?replica_groups = dense<(.*?)>", program)
    assert set(sums) <= {"[[0], [1]]"}  # of each device alone: nothing is sent


@pytest.mark.parametrize("kind", [{}, {"window": 48}, {"causal": False}], ids=str)
@pytest.mark.parametrize("segments", [SEGMENTS, np.ones_like(SEGMENTS)], ids=["several", "one"])
@pytest.mark.parametrize("mesh", [None, {"data": 2, "tensor": 2}], ids=str)
def test_the_call_of_cudnn_equals_xla(monkeypatch, mesh, segments, kind):
    calls, compute = [], jax.nn.dot_product_attention

    def instead(*args, implementation, **kwargs):
        calls.append((implementation, "mask" in kwargs))
        return compute(*args, implementation="xla", **kwargs)

    monkeypatch.setattr(jax.nn, "dot_product_attention", instead)
    config = dataclasses.replace(CONFIG, attention_kernel="cudnn", compute_dtype="bfloat16", **kind)
    if mesh is None:
        check(config, segments=segments)
    else:
        with use_mesh(make_mesh(MeshConfig(**mesh))):
            check(config, segments=segments)
    assert set(calls) == {("cudnn", False), ("cudnn", True)}  # decided while it runs


def device(platform, **known):
    return SimpleNamespace(platform=platform, device_kind=f"some {platform}", **known)


TPU, CPU = device("tpu"), device("cpu")
AMPERE, HOPPER, TURING = (device("gpu", compute_capability=number) for number in ("8.0", "9.0", "7.5"))
BF16 = dict(compute_dtype="bfloat16")


@pytest.mark.parametrize(
    ("on", "kind", "kernel"),
    [
        (CPU, BF16, "xla"),
        (TPU, {}, "splash"),
        (TPU, dict(dropout=0.1), "xla"),
        (TPU, dict(position="alibi"), "xla"),
        (HOPPER, BF16, "cudnn"),
        (HOPPER, {}, "xla"),
        (HOPPER, BF16 | dict(attention_softcap=5.0), "xla"),
        (HOPPER, BF16 | dict(window=8), "cudnn"),
        (HOPPER, BF16 | dict(window=8, causal=False), "xla"),
        (HOPPER, BF16 | dict(head_dim=192), "cudnn"),
        (AMPERE, BF16 | dict(head_dim=192), "xla"),
        (AMPERE, BF16 | dict(head_dim=36), "xla"),
        (AMPERE, BF16, "cudnn"),
        (TURING, BF16, "xla"),
        (device("gpu", compute_capability="gfx942"), BF16, "xla"),
    ],
)
def test_no_kernel_is_chosen_for_what_it_does_not_know(on, kind, kernel):
    assert attention_kernel(dataclasses.replace(CONFIG, **kind), on) == kernel


@pytest.mark.parametrize(
    ("on", "kind", "message"),
    [
        (TPU, dict(attention_kernel="splash", dropout=0.1), "splash does not drop attention weights: got dropout=0.1"),
        (CPU, dict(attention_kernel="splash"), "splash needs a TPU: got some cpu"),
        (TURING, BF16 | dict(attention_kernel="cudnn"), "compute capability 8.0 or more: got some gpu"),
        (HOPPER, BF16 | dict(attention_kernel="cudnn", attention_softcap=2.0), "knows no soft-cap: got attention_softcap=2.0"),
    ],
)
def test_a_kernel_that_would_compute_something_else_is_refused(on, kind, message):
    with pytest.raises(ValueError, match=f"model.attention_kernel=.*{message}.*: leave it out"):
        attention_kernel(dataclasses.replace(CONFIG, **kind), on)


def test_xla_computes_what_a_kernel_cannot():
    splash = dataclasses.replace(CONFIG, attention_kernel="splash")
    cudnn = dataclasses.replace(CONFIG, attention_kernel="cudnn", compute_dtype="bfloat16")
    assert kernel_takes(splash, 256, None) and kernel_takes(cudnn, 256, None)
    assert not kernel_takes(splash, 200, None)
    assert not kernel_takes(cudnn, 255, None)
    assert not kernel_takes(dataclasses.replace(splash, dropout=0.1), 256, None)
    assert not kernel_takes(dataclasses.replace(cudnn, attention_softcap=2.0), 256, None)
    with use_mesh(make_mesh(MeshConfig(data=1, context=8))):
        assert kernel_takes(splash, 1024, None) and not kernel_takes(splash, 512, None)
        assert not kernel_takes(dataclasses.replace(splash, causal=False), 1024, None)
        assert kernel_takes(dataclasses.replace(splash, causal=False, window=48), 1024, None)
        assert not kernel_takes(dataclasses.replace(splash, causal=False, window=1024), 1024, None)  # as wide as the sequence
        assert kernel_takes(dataclasses.replace(splash, window=1024), 1024, None)
        assert not kernel_takes(cudnn, 1024, None)
