"""Rows travel to their experts and back in either way; what finds no room is left out and nothing else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxllm.models import ExpertsConfig
from jaxllm.models.expert_exchange import exchange
from jaxllm.sharding import MeshConfig, make_mesh, map_shards, use_mesh

DEVICES, C, E, D = 4, 12, 8, 3


def ragged_all_to_all(operand, output, starts, counts, places, arriving, *, axis_name):
    """What `jax.lax.ragged_all_to_all` is documented to do, which CPUs cannot; NaN where the counts contradict each other."""
    here, rows = jax.lax.axis_index(axis_name), jnp.arange(output.shape[0])
    operands, starts, counts, places = (jax.lax.all_gather(x, axis_name) for x in (operand, starts, counts, places))
    for device in range(DEVICES):
        first, count = places[device, here], counts[device, here]
        source = jnp.clip(starts[device, here] + rows - first, 0, operand.shape[0] - 1)
        output = jnp.where(((rows >= first) & (rows < first + count))[:, None], operands[device][source], output)
        output = jnp.where(arriving[device] == count, output, jnp.nan)
    return output


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(jax.lax, "ragged_all_to_all", ragged_all_to_all)


def sorted_choices(seed):
    """For each device the experts of its rows, ascending; one expert is chosen by nobody, another by many."""
    chances = np.array([0.3, 0, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1])
    return np.sort(np.random.default_rng(seed).choice(E, p=chances, size=(DEVICES, C)), axis=1)


def travel(experts, rows, room, ragged):
    """Each row, multiplied by 1 + its expert where that is, and back: [DEVICES, C, D]."""
    sizes = np.stack([np.bincount(own, minlength=E) for own in experts]).astype(np.int32)

    def local(rows, sizes):
        sent = exchange(rows, sizes, DEVICES, room, ragged=ragged)
        own = jax.lax.axis_index("expert") * (E // DEVICES) + sent.expert
        return sent.back(sent.rows * (1.0 + own)[:, None]), sent.sizes

    part = PartitionSpec("expert")
    with use_mesh(make_mesh(MeshConfig(data=1, expert=DEVICES))):
        back, arrived = jax.jit(map_shards(local, (part, part), (part, part)))(rows.reshape(-1, D), sizes.reshape(-1))
    return np.asarray(back).reshape(rows.shape), np.asarray(arrived), sizes


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("ragged", [False, True], ids=["padded", "ragged"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_row_meets_its_expert(seed, ragged):
    experts, rows = sorted_choices(seed), np.random.default_rng(seed).normal(size=(DEVICES, C, D)).astype(np.float32)
    back, arrived, sizes = travel(experts, rows, C, ragged)
    np.testing.assert_allclose(back, rows * (1 + experts)[..., None], rtol=1e-6)
    assert arrived.tolist() == sizes.sum(axis=0).tolist()


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("ragged", [False, True], ids=["padded", "ragged"])
def test_what_finds_no_room_comes_back_as_zero(ragged):
    room = ExpertsConfig(num_experts=E, capacity_factor=1.0).room(C, DEVICES)
    experts, rows = sorted_choices(2), np.random.default_rng(2).normal(size=(DEVICES, C, D)).astype(np.float32)
    target = experts // (E // DEVICES)
    place = np.stack([np.arange(C) - np.searchsorted(own, own) for own in target])  # first come, first served
    kept = place < room
    assert room == 3 and 0 < (~kept).sum() < kept.size / 2
    back, _, _ = travel(experts, rows, room, ragged)
    np.testing.assert_allclose(back, np.where(kept[..., None], rows * (1 + experts)[..., None], 0.0), rtol=1e-6)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("factor", [None, 1.0])
def test_both_ways_have_the_same_gradient(factor):
    experts, rows = sorted_choices(3), np.random.default_rng(3).normal(size=(DEVICES * C, D)).astype(np.float32)
    sizes = np.concatenate([np.bincount(own, minlength=E) for own in experts]).astype(np.int32)
    room = ExpertsConfig(num_experts=E, capacity_factor=factor).room(C, DEVICES)
    part = PartitionSpec("expert")

    def local(rows, sizes, *, ragged):
        sent = exchange(rows, sizes, DEVICES, room, ragged=ragged)
        return sent.back(jnp.sin(sent.rows) * sent.expert[:, None])

    def gradient(ragged):
        mapped = map_shards(functools.partial(local, ragged=ragged), (part, part), part)
        return jax.jit(jax.grad(lambda rows: mapped(rows, sizes).sum()))(rows)

    with use_mesh(make_mesh(MeshConfig(data=1, expert=DEVICES))):
        padded, ragged = gradient(False), gradient(True)
    assert np.abs(padded).max() > 0
    np.testing.assert_allclose(padded, ragged, atol=1e-6)
