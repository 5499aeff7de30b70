"""A run whose moments are rounded and wait in the host's memory goes on where it stopped."""

import dataclasses

import pytest

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.recipe import fit
from jaxllm.sharding import MeshConfig
from jaxllm.training import read_metrics
from tests.recipe import tiny


@pytest.mark.slow
@pytest.mark.parametrize("later", ["host", "device"])
def test_a_resumed_run_is_the_same_run(tmp_path, later):
    def recipe(name, steps, memory="host"):
        optimizer = dataclasses.replace(tiny.config().optimizer, state_dtype="bfloat16", state_memory=memory)
        changes = dict(optimizer=optimizer, mesh=MeshConfig(data=1, fsdp=2), checkpoint=CheckpointConfig(every=4))
        return tiny.config(run_dir=str(tmp_path / name), steps=steps, **changes)

    fit(recipe("straight", 8))
    fit(recipe("twice", 4))
    fit(recipe("twice", 8, later))
    curves = [
        [line["loss"] for line in read_metrics(tmp_path / name) if line["split"] == "train"] for name in ("straight", "twice")
    ]
    assert len(curves[0]) == 8 and curves[0] == curves[1]
