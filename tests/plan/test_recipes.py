"""What the large recipes' headers say of their plans, against the records."""

import json
import re
from pathlib import Path

import pytest

from jaxllm.recipe import find_recipe

RECIPES = "gpt2_124m llama_1b gemma3_1b llama2_7b llama3_8b llama3_8b_131k mixtral_8x7b llama3_70b gpt3_175b".split()
ROOT = Path(__file__).parents[2]
PLANNED = re.compile(
    r"^Planned     for (?P<topology>\S+)(?: with (?P<options>[^(]+))? \(record plan\): (?P<peak>\S+) of (?P<capacity>\S+) GB a "
    r"chip; estimated step (?P<step>\S+) s, MFU (?P<mfu>\d+)%$",
    re.MULTILINE,
)


def header(name):
    found = PLANNED.search((ROOT / f"configs/{name}.py").read_text("utf-8"))
    assert found is not None, f"the header of configs/{name}.py must have a line that fits {PLANNED.pattern}"
    return found


def recorded(name):
    (path,) = sorted((ROOT / "scripts/benchmark/results").glob(f"plan--{name}--*.json"))[-1:]
    return json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_header_says_what_was_planned(name):
    found, plan = header(name), recorded(name)["results"]
    assert plan["fits"] is True and plan["topology"] == found["topology"]
    said = {key: found[key] for key in ("peak", "capacity", "step", "mfu")}
    assert said == {
        "peak": f"{plan['peak_bytes_per_chip'] / 1e9:.1f}",
        "capacity": f"{plan['capacity_bytes_per_chip'] / 1e9:.1f}",
        "step": f"{plan['estimated_step_seconds']:.2f}",
        "mfu": f"{100 * plan['estimated_mfu']:.0f}",
    }


@pytest.mark.parametrize("name", RECIPES)
def test_what_was_planned_is_the_recipe(name):
    found, record, recipe = header(name), recorded(name), find_recipe(str(ROOT / f"configs/{name}.py"))
    plan = record["results"]
    assert plan["tokens_per_step"] == recipe.batch_size * recipe.data.seq_len  # type: ignore[union-attr]
    options = dict(zip(*[iter((found["options"] or "").replace("--mesh.", "").split())] * 2, strict=True))
    asked = {axis: size for axis in ("fsdp", "expert", "context", "tensor") if (size := getattr(recipe.mesh, axis)) > 1}
    asked |= {axis: int(size) for axis, size in options.items()}
    assert {axis: size for axis, size in plan["mesh"].items() if axis != "data"} == asked
    for field in ("num_layers", "embed_dim", "num_heads", "vocab_size", "remat"):
        assert record["config"]["model"][field] == getattr(recipe.model, field)


def test_all_generations_are_planned_for_and_the_largest_for_a_large_slice():
    topologies = {name: header(name)["topology"] for name in RECIPES}
    assert {topology.split(":")[0] for topology in topologies.values()} == {"v4", "v5e", "v5p", "v6e"}
    assert topologies["gpt3_175b"] == "v5p:8x8x8"
