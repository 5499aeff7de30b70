"""Small steps compiled by the TPU's compiler: where parameters lie, what is sent, what is refused; and by the one here.

JAXLLM_WRITE_GOLDEN=1 pytest tests/plan/test_compiled.py     # writes the golden files anew: read them before committing
"""

import dataclasses
import functools
import math
import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

from jaxllm.data import DataConfig
from jaxllm.models import ExpertsConfig, train_flops_per_token
from jaxllm.plan import as_json, describe, make_plan, topology_devices
from jaxllm.plan.memory import USABLE
from jaxllm.plan.slices import SLOW_NETWORK
from jaxllm.recipe import Recipe
from jaxllm.recipe.program import Program
from jaxllm.sharding import MeshConfig, MeshError, make_mesh
from jaxllm.training import LossConfig
from jaxllm.training.objectives import MaskedLM
from tests.plan.recipes import small
from tests.quick import some

GOLDEN = Path(__file__).parent / "golden"
needs_libtpu = pytest.mark.skipif(find_spec("libtpu") is None, reason="needs libtpu")


class Case(NamedTuple):
    topology: str
    recipe: Recipe
    slices: int = 1


EXPERTS = {"experts": ExpertsConfig(num_experts=4)}
CASES = {"dense": Case("v5e:2x4", small(mesh=MeshConfig(fsdp=4, tensor=2), loss=LossConfig(chunk=128)))}
LONG = DataConfig(dataset="none", seq_len=2048)
SLOW_CASES = {
    "experts": Case("v5p:2x2x1", small(model=EXPERTS, mesh=MeshConfig(expert=2, context=2))),
    "v5e_4x4": Case("v5e:4x4", small(mesh=MeshConfig(fsdp=16), loss=LossConfig(chunk=128))),
    "v5p_2x2x4": Case("v5p:2x2x4", small(model={"context_len": 2048}, data=LONG, mesh=MeshConfig(fsdp=4, context=4))),
    "v6e_2x4": Case("v6e:2x4", small(mesh=MeshConfig(data=2, fsdp=2, tensor=2, explicit=True), accumulate=2)),
    "v4_2x2x2": Case("v4:2x2x2", small(model=EXPERTS, mesh=MeshConfig(fsdp=2, expert=4))),
    "stages": Case("v5p:2x2x2", small(model={"microbatches": 2}, mesh=MeshConfig(stage=2, fsdp=4))),
    "slices": Case("v5e:2x2", small(mesh=MeshConfig(replica=2, fsdp=4)), slices=2),
}
ALL = CASES | SLOW_CASES


@functools.cache
def planned(name):
    topology, recipe, slices = ALL[name]
    return make_plan(recipe, topology, slices)


@pytest.fixture(scope="module")
def plans():
    return {name: planned(name) for name in CASES}


@needs_libtpu
@pytest.mark.parametrize("name", some(ALL, CASES))
def test_layouts_and_collectives_are_the_golden_ones(name):
    topology, recipe, slices = ALL[name]
    program = Program(recipe, make_mesh(recipe.mesh, recipe.batch_size, devices=list(topology_devices(topology, slices))))
    plan, leaves = planned(name), jax.tree_util.tree_leaves_with_path(program.abstract.params)
    assert plan.memory.fits and plan.devices == len(program.mesh.devices.flat) and not plan.warnings
    lines = [f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.sharding.spec}" for path, leaf in leaves]
    sent = [
        f"{row.kind} over {' '.join(row.axes)}{', between slices' * row.between_slices}: {row.count} x, {row.bytes} bytes"
        for row in plan.collectives
    ]
    path, compiler = GOLDEN / f"{name}.txt", f"libtpu {version('libtpu')}"
    if os.environ.get("JAXLLM_WRITE_GOLDEN"):
        path.write_text("\n".join([*lines, compiler, *sorted(sent)]) + "\n", encoding="utf-8")
    golden = path.read_text(encoding="utf-8").splitlines()
    assert golden[: len(lines)] == lines
    if golden[len(lines)] != compiler:
        pytest.skip(f"layouts are the golden ones; collectives are those of {golden[len(lines)]}, and here is {compiler}")
    assert golden[len(lines) + 1 :] == sorted(sent)


@needs_libtpu
def test_fully_sharded_parameters_are_gathered_twice_and_their_gradients_scattered_once(plans):
    """Over fsdp 4 and tensor 2, in bfloat16: what every layer's matrices need at least, forward, backward and after it. The
    upper bound leaves room for norms, tokens, and gradients that are summed in float32."""
    plan, case = plans["dense"], CASES["dense"].recipe
    matrices = 4 * (256 * 128 * (4 + 2 + 2 + 4) + 3 * 256 * 512) // 2 * 2
    sent = {kind: sum(row.bytes for row in plan.collectives if row.kind == kind and row.axes == ("fsdp",)) for kind in
            ("all-gather", "reduce-scatter", "all-reduce", "collective-permute")}  # fmt: skip
    gathered, scattered = 2 * matrices * 3 // 4, matrices * 3 // 4
    assert gathered <= sent["all-gather"] + sent["collective-permute"]
    assert gathered + scattered <= sum(sent.values()) <= 2 * (gathered + scattered)
    counts = {row.kind: row.count for row in plan.collectives if row.axes == ("tensor",)}
    assert counts["reduce-scatter"] + counts["all-gather"] >= 4 * 4  # of each sublayer, forward and backward
    assert case.model.num_layers == 4


@pytest.mark.slow
@needs_libtpu
def test_between_slices_only_gradients_go():
    """Once each, in bfloat16, of which a device has a fourth: of two slices each sends half of it to be summed and half of the
    sum. The embedding's is summed in float32."""
    plan = planned("slices")
    between = [row for row in plan.collectives if row.between_slices]
    assert {row.axes for row in between} == {("replica",)} and "between slices" in describe(plan)
    embedding = 1024 * 256
    expected = (2 * (plan.parameters - embedding) + 4 * embedding) / 4
    assert sum(row.bytes for row in between) == pytest.approx(expected, rel=0.01)
    assert {row.axes for row in plan.collectives if not row.between_slices} == {("fsdp",)}
    (alone,) = (s for row, s in zip(plan.collectives, plan.collective_seconds, strict=True) if row.between_slices)
    assert alone == between[0].bytes / SLOW_NETWORK and plan.seconds.hidden + plan.seconds.exposed >= alone


@needs_libtpu
@pytest.mark.parametrize("name", CASES)
def test_memory_and_flops_are_those_of_the_shapes(name, plans):
    plan, case = plans[name], CASES[name].recipe
    memory = plan.memory
    stored = 4 * plan.parameters // plan.devices
    assert memory.parameters == pytest.approx(stored, rel=0.02)  # all axes of both meshes spread parameters
    assert memory.optimizer == pytest.approx(2 * stored, rel=0.02)
    rows = case.batch_size * case.data.seq_len  # type: ignore[union-attr]
    assert memory.arguments == pytest.approx(3 * stored, rel=0.1) and memory.batch < memory.arguments / 10
    assert memory.fits and memory.capacity == USABLE[plan.device]
    assert plan.flops_per_step == train_flops_per_token(case.model, 256) * rows
    assert plan.attention_kernel == "splash" and not plan.warnings


@needs_libtpu
@pytest.mark.parametrize("name", CASES)
def test_time_is_no_shorter_than_what_cannot_overlap(name, plans):
    plan = plans[name]
    seconds, exposed = plan.seconds, sum(row.exposed_bytes for row in plan.collectives)
    assert exposed and seconds.exposed >= exposed / 600e9
    assert seconds.step >= plan.flops_per_step / plan.devices / plan.peak_flops + seconds.exposed
    assert seconds.step >= plan.kernel_flops / plan.peak_flops + seconds.exposed
    pairs = 0.5 * 256 * 256 * (1 + 256 / 256) * case_rows(name) * 4 * 128 * 4  # one block of queries and keys, heads, layers
    products = 2 + 2 + 7  # forward, recomputed, backward
    assert plan.kernel_flops * plan.devices == pytest.approx(2 * products * pairs, rel=0.01)


def case_rows(name):
    return CASES[name].recipe.batch_size


@needs_libtpu
def test_words_and_json_say_the_same(plans):
    plan = plans["dense"]
    found, words = as_json(plan, price=2.0), describe(plan, 2.0)
    assert {"peak_bytes_per_chip", "argument_bytes", "temp_bytes", "estimated_cycles", "collective_bytes", "flops_per_step",
            "estimated_step_seconds", "estimated_mfu", "compile_seconds", "fits"} <= set(found)  # fmt: skip
    assert found["fits"] is True and found["peak_bytes_per_chip"] < 50e6
    assert found["estimated_cycles"] == sum(found["estimated_cycles_by_part"].values())
    parts = {"attention", "feed-forward", "unembedding", "optimizer and the rest"}
    assert parts <= set(found["estimated_cycles_by_part"]) and math.isclose(sum(found["estimated_share_by_part"].values()), 1)
    hours = found["estimated_step_seconds"] / 3600 * 1e9 / (16 * 256)
    assert found["estimated_dollars_per_billion_tokens"] == pytest.approx(8 * 2.0 * hours)
    assert "fits" in words and words.count("(estimate") >= 3 and f"{1e9 / 1e9 * 8 * 2.0 * hours:,.2f} dollars" in words


@needs_libtpu
def test_a_step_that_does_not_fit_gets_a_plan_with_advice():
    wide = {"num_layers": 64, "embed_dim": 8192, "num_heads": 64, "num_kv_heads": 8, "ffw_dim": 32768}
    plan = make_plan(small(model=wide, mesh=MeshConfig(fsdp=8)), "v5e:2x4")
    memory = plan.memory
    assert memory.fits is False and memory.peak > memory.capacity == USABLE["TPU v5 lite"] and plan.seconds is None
    assert memory.peak > memory.parameters + memory.optimizer == pytest.approx(3 * 4 * plan.parameters / 8, rel=0.01)
    found, words = as_json(plan), describe(plan)
    assert found["fits"] is False and "--mesh.fsdp" in found["advice"][0]
    assert "DOES NOT FIT" in words and "no estimate of time: it does not fit" in words


@needs_libtpu
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_serving_holds_parameters_in_the_type_it_computes_with_and_a_cache(phase):
    plan = make_plan(small(mesh=MeshConfig(tensor=2)), "v5e:2x4", phase=phase)
    cache = (
        2 * 4 * 16 * 2 * 256 * 128 * 2 // 8
    )  # keys and values, layers, rows, heads, slots, width, bytes; over data 4 x tensor 2
    assert plan.memory.parameters == pytest.approx(2 * plan.parameters / 2, rel=0.01) and plan.memory.optimizer == 0
    assert plan.seconds is not None and plan.memory.fits and plan.attention_kernel == "xla"
    assert (
        plan.cycles["other layers"] < plan.cycles["attention"] / 2
    )  # layers apart: a loop over them would copy cache and weights
    if phase == "decode":
        assert (
            plan.memory.cache == pytest.approx(cache, rel=0.01) and plan.memory.aliased >= cache and plan.tokens_per_step == 16
        )
        assert plan.seconds.bound == "memory" and plan.seconds.traffic > 10 * plan.seconds.flops
    else:
        assert plan.memory.cache == 0 and plan.memory.outputs >= cache and plan.tokens_per_step == 16 * 256


@needs_libtpu
@pytest.mark.parametrize(("name", "chips"), [("v4:2x2x1", 4), ("v5e:1x1", 1), ("v5p-8", 4), ("v6e-1", 1), ("v5e:2x2", 4)])
def test_a_topology_has_a_device_a_chip(name, chips):
    assert len(topology_devices(name)) == chips


@needs_libtpu
def test_chips_left_over_that_are_no_block_of_the_slice():
    """As training meets them on a slice that is there."""
    chips = list(topology_devices("v5e:4x4"))
    with pytest.raises(MeshError, match="must take a block of them: got data=12 .*, 12 of 16; choose .* that use all 16$"):
        make_mesh(MeshConfig(), 24, devices=chips)
    assert make_mesh(MeshConfig(), 17, devices=chips).size == 1


def test_a_step_is_planned_for_the_devices_here(two_cores):
    tiny = {"compute_dtype": "float32", "num_layers": 2, "embed_dim": 64, "head_dim": 16}
    plan = make_plan(small(model=tiny, mesh=MeshConfig(fsdp=2)))
    assert plan.devices == 8 and plan.attention_kernel == "xla" and not plan.cycles
    assert plan.memory.fits and plan.memory.capacity > 1e8
    assert plan.seconds is not None and 0 < plan.mfu < 1 and {"attention", "feed-forward"} <= set(plan.shares)
    assert "from measured rates" in describe(plan) and as_json(plan)["estimated_cycles"] is None
    half = make_plan(dataclasses.replace(small(model=tiny, mesh=MeshConfig(fsdp=2)), batch_size=8))
    assert half.seconds is not None and half.seconds.step < plan.seconds.step
    assert half.memory.activations < plan.memory.activations


@pytest.mark.parametrize(
    ("topology", "options", "changes", "message"),
    [
        ("v5e:2x4", {}, dict(mesh=MeshConfig(data=2)), "all 8 devices of v5e:2x4: got 2; set --mesh.data 8$"),
        ("v5e:2x4", {}, dict(batch_size=17), "all 8 devices of v5e:2x4: got 1; set --batch-size 16 or 24$"),
        ("v5e:4x4", {}, dict(batch_size=24), "all 16 devices of v5e:4x4: got 12; set --batch-size 16 or 32$"),
        ("v5e:4x4", {}, dict(batch_size=24, accumulate=2), "all 16 devices of v5e:4x4: got 12; set --batch-size 32$"),
        (
            "v5e:4x4",
            {},
            dict(mesh=MeshConfig(data=12), batch_size=24),
            "all 16 devices of v5e:4x4: got 12; set --batch-size 16 or 32 and --mesh.data 16$",
        ),
        (
            "v5e:4x4",
            {},
            dict(mesh=MeshConfig(data=1, fsdp=8, tensor=4)),
            "all 16 devices of v5e:4x4: got 32; choose --mesh sizes whose product divides 16$",
        ),
        (
            "v5e:2x4",
            {"slices": 2},
            dict(mesh=MeshConfig(data=1, fsdp=8)),
            "all 16 devices of 2 slices of v5e:2x4: got 8; set --mesh.replica 2 for a copy of the model on each slice$",
        ),
        (
            "v5e:2x2",
            {"slices": 4},
            dict(mesh=MeshConfig(replica=2, fsdp=4)),
            "mesh.replica x mesh.stage must be a multiple of the 4 slices.* got 2 x 1",
        ),
        ("v5e:3x5", {}, dict(), "there is no v5e:3x5: near it are v5e:4x4"),
        ("v5e:2x4", {}, dict(model={"vocab_size": None}), "model.vocab_size must be known to plan without the data"),
        ("here", {"slices": 2}, dict(), "slices are those of a topology: got slices=2 and none"),
        (
            "here",
            {"phase": "decode"},
            dict(model={"causal": False}, objective=MaskedLM()),
            "phase decode is planned for decoders",
        ),
        ("here", {"phase": "prefill", "length": 512}, dict(), "length must be in 1..model.context_len=256: got 512"),
    ],
)
def test_what_cannot_be_planned(topology, options, changes, message):
    if topology != "here" and find_spec("libtpu") is None:
        pytest.skip("needs libtpu")
    with pytest.raises(ValueError, match=message):
        make_plan(small(**changes), topology, **options)
