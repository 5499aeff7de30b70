"""The tasks that learn a language, split over devices: the same loss and gradient on every mesh, logits whole or in pieces."""

import functools

import jax
import numpy as np
import pytest

from jaxllm.data.rows import Share
from jaxllm.finetune import LoRA, adapt
from jaxllm.finetune.tasks.instruction import InstructionTuning
from jaxllm.finetune.tasks.preference import PreferenceTuning
from jaxllm.finetune.tasks.text_to_text import TextToText
from jaxllm.models import EncoderDecoderConfig, HeadConfig, make_model
from jaxllm.sharding import MeshConfig, batch_parts, batch_sharding, make_mesh, shardings_for, use_mesh
from jaxllm.training import LossConfig
from tests.finetune.programs import fresh, moved
from tests.finetune.tasks.chats import decoder, opened, parameters, write_sets
from tests.models.programs import described

LORA = LoRA(rank=2)
BEHIND = EncoderDecoderConfig(
    encoder=decoder(causal=False, num_layers=1, head=HeadConfig(kind="none")),
    decoder=decoder(num_layers=1, cross_attention=True),
    start_id=0,
)
CASES = {
    "conversations": (InstructionTuning(), decoder(), "chats", None),
    "preferences": (PreferenceTuning(kind="orpo"), decoder(), "pairs", None),
    "preferences, adapter": (PreferenceTuning(), decoder(), "pairs", LORA),
    "text to text": (TextToText(target_len=32), BEHIND, "texts", None),
}
MESHES = {
    "data": MeshConfig(data=4, tensor=2),
    "explicit": MeshConfig(data=2, fsdp=2, tensor=2, explicit=True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    write_sets(folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(folder, monkeypatch):
    monkeypatch.setenv("JAXLLM_CACHE", str(folder / "cache"))


@functools.cache
def alone(case: str, folder, chunk: int | None):
    return computed(case, folder, chunk, None)


def computed(case: str, folder, chunk: int | None, sizes: MeshConfig | None):
    task, config, dataset, method = CASES[case]
    model = make_model(config) if method is None else adapt(make_model(config), method)
    params = parameters(config) if method is None else moved(method, fresh(method, config))
    rows = task.rows(opened(folder, dataset), config, "train", seed=2)
    loss = task.make_loss(model, LossConfig(chunk=chunk))
    value = jax.jit(jax.value_and_grad(lambda params, batch: loss(params, batch, None).total))
    if sizes is None:
        return jax.device_get(value(params, rows.batch(np.arange(8), Share())))
    mesh = make_mesh(sizes)
    parts = batch_parts(mesh)
    batch = jax.device_put(rows.batch(np.arange(8), Share(parts, tuple(range(parts)))), batch_sharding(mesh))
    if method is None:
        params = jax.device_put(params, shardings_for(*described(config), mesh))
    with use_mesh(mesh):
        return jax.device_get(value(params, batch))


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("case", CASES)
def test_the_mesh_changes_nothing(case, mesh, folder):
    chunk = 8 if mesh == "data" else None
    total, gradient = computed(case, folder, chunk, MESHES[mesh])
    wanted, expected = alone(case, folder, None)
    assert total == pytest.approx(wanted, rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4 * max(np.abs(b).max(), 1)), gradient, expected)
