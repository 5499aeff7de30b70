"""A task in two processes: each has its parts of every batch, and all say the same of the validation split."""

import json

import numpy as np
import pytest

import jaxllm
from jaxllm.data import TaskDataConfig, TokenizerConfig
from jaxllm.data.tfds_builder import Label, write_set
from jaxllm.finetune.tasks import TextClassification
from jaxllm.models import HeadConfig, TransformerConfig
from jaxllm.recipe import save_json
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, read_metrics
from tests.distributed.launch import train_to_end
from tests.finetune.tasks.conftest import sentence
from tests.recipe import tiny


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    rows = [(f"t:{i}", text, ("bad", "good")[label]) for i in range(90) for text, label in [sentence(i)]]
    features = {"id": None, "text": None, "label": Label(("bad", "good"))}
    write_set("reviews", {"train": rows[:60], "validation": rows[60:]}, tmp_path, description="", features=features)
    task, head = TextClassification(), HeadConfig(kind="none")
    model = TransformerConfig(num_layers=1, num_heads=2, embed_dim=16, context_len=64, causal=False, init_std=0.1, head=head)
    tokenizer = TokenizerConfig(kind="wordpiece", vocab_size=300)
    recipe = tiny.config(
        run_dir=str(tmp_path / "one"),
        steps=4,
        model=task.headed(model),
        objective=task,
        data=TaskDataConfig(dataset="reviews", data_dir=str(tmp_path), seq_len=32, tokenizer=tokenizer),
        evaluate=EvaluateConfig(every=4, batch_size=16, metric="accuracy"),
        mesh=MeshConfig(data=2),
    )
    jaxllm.fit(recipe)
    save_json(recipe, tmp_path / "recipe.json")
    train_to_end(2, f"{tmp_path}/recipe.json", "--run-dir", str(tmp_path / "two"))
    one, two = ([line["loss"] for line in read_metrics(tmp_path / run)] for run in ("one", "two"))
    np.testing.assert_allclose(two, one, rtol=1e-5)
    results = [json.loads((tmp_path / run / "results.json").read_text())["validation"] for run in ("one", "two")]
    assert results[0]["metrics"] == results[1]["metrics"] and results[0]["examples"] == 30
