"""Golden text files: the loss curve of the tiny recipe, and where every parameter of each recipe lives.

When a change is meant to move them, write them anew with `python -m tests.recipe.test_golden`, look at the diff, and
say in the commit why it moved.
"""

import tempfile
from pathlib import Path

import jax
import pytest
from jax.sharding import AbstractMesh

from jaxllm.models import abstract_params, make_model
from jaxllm.recipe import find_recipe, fit
from jaxllm.recipe.resolve import FromData, resolved
from jaxllm.sharding import spec
from jaxllm.training import read_metrics
from tests.recipe import tiny

GOLDEN = Path(__file__).parent / "golden"
RECIPES = [path.stem for path in sorted(Path("configs").glob("*.py")) if find_recipe(str(path)).pretrained is None]
"""Those that say all of their model themselves."""
CHANGED = "differs from its golden file: if that is meant, run python -m tests.recipe.test_golden and look at the diff"


def loss_curve() -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        fit(tiny.config(run_dir=f"{folder}/run"))
        return [line["loss"] for line in read_metrics(Path(folder) / "run")]


def shardings(name: str) -> str:
    """Each parameter on a mesh of data 2, fsdp 2, tensor 2: its shape, and what splits each dimension at rest."""
    recipe = find_recipe(f"configs/{name}.py")
    model = make_model(resolved(recipe, FromData(65), recipe.steps).model)
    params, axes = abstract_params(model)
    mesh = AbstractMesh((2, 2, 2), ("data", "fsdp", "tensor"))
    names = {jax.tree_util.keystr(path): leaf.names for path, leaf in _leaves(axes)}
    lines = [
        f"{jax.tree_util.keystr(path)} {leaf.shape} {spec(names[jax.tree_util.keystr(path)], leaf.shape, mesh, stored=True)}"
        for path, leaf in _leaves(params)
    ]
    return "\n".join(lines) + "\n"


def _leaves(tree):
    return jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: hasattr(node, "names"))


def test_the_loss_curve_of_the_tiny_recipe():
    want = [float(line) for line in (GOLDEN / "tiny_loss.txt").read_text().split()]
    assert loss_curve() == pytest.approx(want, abs=1e-4), f"the loss curve {CHANGED}"


@pytest.mark.parametrize("name", RECIPES)
def test_where_every_parameter_lives(name):
    assert shardings(name) == (GOLDEN / f"shardings--{name}.txt").read_text(), f"{name} {CHANGED}"


def write() -> None:
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "tiny_loss.txt").write_text("".join(f"{loss:.6f}\n" for loss in loss_curve()))
    for name in RECIPES:
        (GOLDEN / f"shardings--{name}.txt").write_text(shardings(name))


if __name__ == "__main__":
    write()
