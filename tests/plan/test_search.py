"""Layouts: which there are, what is counted of them, and which is found best on the devices here."""

import dataclasses

import pytest

from jaxllm.cli.overrides import override
from jaxllm.models import ExpertsConfig
from jaxllm.plan import Search, describe_search, search
from jaxllm.plan.kernels import stack_of
from jaxllm.plan.layouts import REMAT, Layout, layouts, meshes
from jaxllm.plan.rough import Machine, Model, Rough, activation_bytes, rough, state_bytes
from jaxllm.plan.search import Found, compile_best
from jaxllm.sharding import MeshConfig
from tests.plan.recipes import small
from tests.plan.test_report import GB, PLAN

MACHINE = Machine(peak=1e12, network=1e10, memory=1e11, capacity=10**9, kernel="splash")
MODEL = Model(parameters=10**7, learning=10**7, optimizer_bytes=8 * 10**7, flops_per_token=6e7)


def layout(**changes):
    mesh = dict.fromkeys(("replica", "stage", "data", "fsdp", "expert", "context", "tensor"), 1) | changes.pop("mesh", {})
    return Layout(**dict(mesh=mesh, remat="block", rows=2, batch_size=16, accumulate=1) | changes)


def test_meshes_are_those_that_the_model_allows():
    """Four heads: tensor is at most 4. No experts: expert is 1."""
    found = list(meshes(small(), 8))
    assert len({tuple(sizes.items()) for sizes in found}) == len(found) > 10
    assert all(sizes["data"] * sizes["fsdp"] * sizes["tensor"] * sizes["context"] == 8 for sizes in found)
    assert {sizes["tensor"] for sizes in found} == {1, 2, 4} and {sizes["expert"] for sizes in found} == {1}
    experts = small(model={"experts": ExpertsConfig(num_experts=4)})
    assert {sizes["expert"] for sizes in meshes(experts, 8)} == {1, 2, 4}


def test_each_layout_is_a_recipe_and_its_options_say_the_same():
    recipe = small(mesh=MeshConfig(fsdp=2))
    found = list(layouts(recipe, 4, 1))
    assert {row.remat for row in found} == set(REMAT) and len(found) > 50
    for row in found[:: len(found) // 8]:
        applied = row.applied(recipe)
        by_options = override(recipe, row.overrides(recipe).split())
        assert dataclasses.replace(by_options, mesh=applied.mesh) == applied
        assert [getattr(by_options.mesh, axis) or size for axis, size in row.mesh.items()] == list(row.mesh.values())
        assert row.batch_size % (row.rows * row.accumulate) == 0


def test_rows_that_divide_the_batch_keep_it_by_accumulation():
    found = {(row.rows, row.batch_size, row.accumulate) for row in layouts(small(), 4, 1) if row.mesh["fsdp"] == 4}
    assert (1, 16, 4) in found and (4, 16, 1) in found and (8, 32, 1) in found


def test_over_slices_each_has_a_copy():
    assert all(row.mesh["replica"] == 2 for row in layouts(small(), 8, 2))


def test_counted_memory_follows_what_is_split_and_kept():
    recipe = small()
    config = stack_of("decoder", recipe.model)
    whole, split = (state_bytes(config, MODEL, layout(mesh={"fsdp": parts})) for parts in (1, 8))
    assert whole == 8 * 10**7 + 8 * 10**7 and split < whole / 4
    kept = [activation_bytes(recipe, config, MACHINE, layout(remat=name), 512) for name in REMAT]
    assert kept == sorted(kept, reverse=True) and kept[0] > 1.5 * kept[3]
    with_weights = dataclasses.replace(MACHINE, kernel="xla")
    assert activation_bytes(recipe, config, with_weights, layout(remat="none"), 512) > kept[0]
    assert activation_bytes(recipe, config, with_weights, layout(), 512) > activation_bytes(
        recipe, config, MACHINE, layout(), 512
    )


def test_counted_time_grows_with_what_is_computed_twice_and_sent():
    recipe = small()
    config = stack_of("decoder", recipe.model)
    guess = lambda **changes: rough(recipe, config, MODEL, MACHINE, layout(**changes)).tokens_per_second  # noqa: E731
    assert guess(remat="none") > guess(remat="dots") > guess(remat="block")
    slices = {"mesh": {"replica": 2}, "batch_size": 16}  # gradients go between them for each part of a batch
    assert guess(**slices, rows=8, accumulate=1) > guess(**slices, rows=2, accumulate=4)
    assert guess(mesh={"fsdp": 4}, batch_size=8) > guess(mesh={"tensor": 4}, batch_size=2)


@pytest.mark.parametrize("fits", [True, False])
def test_of_each_kind_a_few_are_compiled_and_none_larger_than_one_that_does_not_fit(fits):
    recipe = small()
    config = stack_of("decoder", recipe.model)
    rows = [(row, rough(recipe, config, MODEL, MACHINE, row)) for row in layouts(recipe, 4, 1)]
    plan = dataclasses.replace(PLAN, memory=dataclasses.replace(PLAN.memory, capacity=16 * GB if fits else GB))
    taken = compile_best(rows, 8, lambda row, guess: Found(layout=row, overrides="", guess=guess, plan=plan))
    meshes_taken = [tuple(found.layout.mesh.items()) for found in taken]
    assert len(taken) == 8 and max(map(meshes_taken.count, meshes_taken)) == 2
    assert taken[0].guess.tokens_per_second == max(guess.tokens_per_second for _, guess in rows)
    remats = [found.layout.remat for found in taken]
    needed = [found.guess.peak_bytes for found in taken]
    if fits:
        assert max(map(remats.count, remats)) == 2
    else:
        assert needed == sorted(needed, reverse=True) and len(set(needed)) == 8


def test_the_best_of_this_machine_are_compiled_and_ranked(two_cores):
    tiny = {"num_layers": 2, "embed_dim": 64, "head_dim": 16, "ffw_dim": 128, "compute_dtype": "float32", "vocab_size": 64}
    recipe, said = small(model=tiny, batch_size=8), []
    result = search(recipe, compiled=2, say=said.append)
    assert len(result.found) == 2 and result.counted > 20
    assert said[0].startswith(f"{result.counted} layouts counted") and "compiling the best 2" in said[0] and len(said) == 5
    for row, before, after in zip(sorted(result.found, key=lambda row: said.index(f"compiling {row.overrides}")),
                                  said[1::2], said[2::2], strict=True):  # fmt: skip
        assert before == f"compiling {row.overrides}" and row.plan is not None and row.plan.seconds is not None
        assert (
            f"peak {row.plan.memory.peak / 1e9:.2f} of " in after and f"step {row.plan.seconds.step:.4g} s (estimate" in after
        )
    speeds = [row.speed for row in result.found]
    assert speeds == sorted(speeds, reverse=True) and speeds[-1] > 0
    best = result.found[0]
    assert best.plan is not None and best.plan.mesh == {axis: size for axis, size in best.layout.mesh.items() if size > 1}
    words = describe_search(result)
    assert (
        best.overrides in words
        and "estimates" in words
        and words.index(best.overrides) < words.index(result.found[1].overrides)
    )
    priced, cost = describe_search(result, 2.0).splitlines(), best.plan.dollars_per_billion_tokens(2.0)
    assert "$ a billion" in priced[1] and "$" not in words and f" {cost:,.2f} " in priced[2]
    assert {line.index("--mesh") for line in priced[2:]} == {priced[1].index("options")}


def test_a_layout_that_does_not_fit_or_was_refused_has_its_line():
    large = dataclasses.replace(PLAN, seconds=None, memory=dataclasses.replace(PLAN.memory, capacity=GB))
    guess = Rough(peak_bytes=1, step_seconds=1.0, tokens_per_second=1.0)
    rows = [Found(layout=layout(), overrides=f"--mesh.fsdp {size}", guess=guess, plan=plan, refused=refused)
            for size, plan, refused in ((4, PLAN, None), (2, large, None), (1, None, "too odd"))]  # fmt: skip
    for price in (None, 1.0):
        lines = describe_search(Search(counted=9, too_large=3, found=rows), price).splitlines()
        assert lines[2].index("--mesh") == lines[3].index("--mesh") == lines[1].index("options")
        assert "does not fit" in lines[3] and lines[4] == "  3 too odd: --mesh.fsdp 1"


@pytest.mark.parametrize(
    ("changes", "count", "message"),
    [
        ({}, 0, "--compile must be at least 1: got 0"),
        (
            {"model": {"num_layers": 96, "embed_dim": 12288, "num_heads": 96, "num_kv_heads": 96}},
            1,
            "no layout of small fits 8 devices of .* GB: the smallest needs about .* use a larger topology",
        ),
    ],
)
def test_what_cannot_be_searched(changes, count, message, two_cores):
    with pytest.raises(ValueError, match=message):
        search(small(**changes), compiled=count)
