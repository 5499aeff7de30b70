"""Optimizer moments in bfloat16 and in the host's memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxllm.models import Transformer
from jaxllm.sharding import MeshConfig, make_mesh
from jaxllm.training import OptimizerConfig, abstract_state, make_optimizer
from jaxllm.training.optimizer import _muon_dimensions
from jaxllm.training.rounded import round_on_average, rounded
from tests.training.test_step import MODEL, run


def test_rounding_keeps_the_mean():
    x = np.random.default_rng(0).normal(size=64).astype(np.float32)
    down = (x.view(np.uint32) & 0xFFFF0000).view(np.float32)
    up = ((x.view(np.uint32) & 0xFFFF0000) + 0x10000).view(np.float32)
    drawn = np.asarray(jax.vmap(lambda count: round_on_average(jnp.asarray(x), count))(jnp.arange(4096)), np.float32)
    assert ((drawn == down) | (drawn == up)).all()
    assert np.abs((drawn.mean(axis=0) - x) / (up - down)).max() < 0.04  # five standard deviations of the mean
    exact = jnp.asarray([0.0, 1.0, jnp.inf, -jnp.inf, jnp.nan])
    np.testing.assert_array_equal(round_on_average(exact, jnp.int32(3)).astype(jnp.float32), exact)


def test_a_slow_second_moment_decays():
    """Rounded to the nearest, nu · 0.999 is nu."""
    rule = rounded(optax.scale_by_adam(b2=0.999))
    params = {"kernel": jnp.linspace(0.5, 1.5, 256)}
    state = rule.init(params)
    _, state = rule.update(params, state)
    (_, state), _ = jax.lax.scan(
        lambda carry, _: ((None, rule.update(jax.tree.map(jnp.zeros_like, params), carry[1])[1]), None),
        (None, state),
        length=1000,
    )
    nu = np.asarray(state.inner.nu["kernel"], np.float32)
    assert state.inner.nu["kernel"].dtype == jnp.bfloat16
    np.testing.assert_allclose(nu.mean(), 0.001 * 0.999**1000 * np.square(params["kernel"]).mean(), rtol=0.03)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion", "muon", "sgd"])
def test_every_rule_keeps_its_state_in_bfloat16(name):
    optimizer, _ = make_optimizer(OptimizerConfig(name=name, state_dtype="bfloat16", ema=0.9), 10)
    state = abstract_state(Transformer(MODEL), optimizer, make_mesh(MeshConfig(data=1, fsdp=2)))
    kinds = {
        leaf.dtype for path, leaf in jax.tree.leaves_with_path(state.opt_state) if leaf.ndim and "average" not in str(path)
    }
    assert kinds == {jnp.dtype(jnp.bfloat16)}
    averages = [leaf for path, leaf in jax.tree.leaves_with_path(state.opt_state) if "average" in str(path)]
    assert averages and {leaf.dtype for leaf in (*averages, *jax.tree.leaves(state.params))} == {jnp.dtype(jnp.float32)}


def test_muon_knows_the_matrices_of_both_stacks():
    kernel, layers = jnp.zeros((2, 4, 6)), {"ffw": {"up": {"kernel": jnp.zeros((2, 4, 6)), "bias": jnp.zeros((2, 6))}}}
    found = _muon_dimensions({"encoder": {"layers": layers, "embed": {"table": kernel[0]}}, "decoder": {"layers": layers}})
    for stack in ("encoder", "decoder"):
        own = found[stack]["layers"]["ffw"]["up"]
        assert own["kernel"].reduction_axis == (1,) and own["kernel"].output_axis == (2,) and own["bias"] is None
    assert found["encoder"]["embed"]["table"] is None


def test_moments_lie_as_their_parameters_where_they_are_kept():
    optimizer, _ = make_optimizer(OptimizerConfig(state_dtype="bfloat16", ema=0.9), 10)
    state = abstract_state(Transformer(MODEL), optimizer, make_mesh(MeshConfig(data=1, fsdp=2)), "host")
    kernel = ("layers", "ffw", "up", "kernel")
    found = {}
    for path, leaf in jax.tree.leaves_with_path(state.opt_state):
        keys = tuple(str(getattr(entry, "key", getattr(entry, "name", ""))) for entry in path)
        if keys[-4:] == kernel:
            found[keys[-5]] = (leaf.sharding.spec, leaf.sharding.memory_kind)
    spec = state.params["layers"]["ffw"]["up"]["kernel"].sharding.spec
    assert found == {"mu": (spec, "pinned_host"), "nu": (spec, "pinned_host"), "average": (spec, "device")}


@pytest.mark.slow
def test_where_and_how_moments_are_kept_changes_little():
    mesh = MeshConfig(data=1, fsdp=2, tensor=2)
    plain, _ = run(mesh=mesh)
    host, state = run(mesh=mesh, optimizer=OptimizerConfig(state_memory="host"))
    np.testing.assert_array_equal(host, plain)
    assert state.opt_state[1][0].mu["final_norm"]["scale"].sharding.memory_kind == "pinned_host"
    small, _ = run(mesh=mesh, optimizer=OptimizerConfig(state_dtype="bfloat16"))
    assert 0 < np.abs(np.array(small) - np.array(plain)).max() < 0.01
