"""What a run begins with, where it is not made in one program: PiSSA's factors on a machine of few threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import jax, numpy as np
from jaxllm.data import DataConfig
from jaxllm.finetune import LoRA
from jaxllm.finetune.operations import merge
from jaxllm.hardware import set_up
from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe
from jaxllm.recipe.load import first_state
from jaxllm.recipe.program import Program
from jaxllm.sharding import MeshConfig, make_mesh

set_up()
model = TransformerConfig(vocab_size=32, num_layers=3, num_heads=2, embed_dim=16, ffw_dim=24, context_len=8)
method = LoRA(rank=3, targets=("all-linear",), initialization="pissa")
states = []
for mesh in MeshConfig(data=1), MeshConfig(data=1, fsdp=2):
    data = DataConfig(dataset="none", seq_len=8)
    recipe = Recipe(name="p", steps=4, batch_size=2, model=model, data=data, method=method, mesh=mesh)
    program = Program(recipe, make_mesh(mesh, 2))
    states.append(first_state(recipe, program.model, program.mesh, program.abstract)[0])
one, other = [jax.tree.map(np.asarray, jax.device_get(state.whole)) for state in states]
own = one["layers"]["ffw"]["up"]
u, s, v = np.linalg.svd(own["kernel"][1])
np.testing.assert_allclose(2 * 8 / 3 * own["lora"]["a"][1] @ own["lora"]["b"][1], (u[:, :3] * s[:3]) @ v[:3], atol=1e-6)
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, other)
leaf = states[1].params["layers"]["ffw"]["up"]["lora"]["a"]
assert leaf.sharding.shard_shape(leaf.shape) != leaf.shape, leaf.sharding
np.testing.assert_array_equal(own["lora"]["a"], own["lora"]["initial_a"])
print("same")
"""


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2])
def test_pissa_begins_on_two_devices(devices, tmp_path):
    """XLA's own decomposition waits forever there, on one device and on two: a pool of two threads."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0 and done.stdout.split() == ["same"], done.stderr[-2000:]


UNSTARTED = """
from jax._src import xla_bridge
from jaxllm.data import DataConfig
from jaxllm.finetune import BitFit, Freeze, LoRA
from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe

model = TransformerConfig(vocab_size=32, num_layers=1, num_heads=2, embed_dim=16, context_len=8)
for method in Freeze(), BitFit(), LoRA():
    Recipe(name="p", steps=1, batch_size=2, model=model, data=DataConfig(dataset="none", seq_len=8), method=method)
print(len(xla_bridge._backends))
"""


def test_a_recipe_starts_no_device():
    """Reading one comes before the machine is set up and other processes are joined."""
    done = subprocess.run([sys.executable, "-c", UNSTARTED], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.stdout.split() == ["0"], done.stderr[-2000:]
