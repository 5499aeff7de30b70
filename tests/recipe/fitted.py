"""Small runs that are fitted to tasks, from small runs before them, for what is told of them at their end."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxllm
from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TaskDataConfig, TokenizerConfig
from jaxllm.data.tfds_builder import Label, write_set
from jaxllm.finetune import LoRA
from jaxllm.finetune.tasks import InstructionTuning, TextClassification
from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe
from jaxllm.recipe.forgetting import TEXT, text_rows
from jaxllm.recipe.recipe import FromPretrained
from jaxllm.training import EvaluateConfig, OptimizerConfig, ScheduleConfig
from tests.finetune.tasks.chats import write_sets
from tests.finetune.tasks.conftest import sentence
from tests.recipe import tiny

STACK = TransformerConfig(num_layers=1, num_heads=2, embed_dim=16, context_len=192, init_std=0.2)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Reviews, the same with other labels, and conversations."""
    folder = tmp_path_factory.mktemp("fitted")
    rows = [(f"t:{i}", text, ("bad", "good")[label]) for i in range(100) for text, label in [sentence(i)]]
    features = {"id": None, "text": None, "label": Label(("bad", "good"))}
    write_set(
        "reviews",
        {"train": rows[:60], "validation": rows[60:80], "test": rows[80:]},
        folder,
        description="",
        features=features,
    )
    other = [(name, text, {"bad": "sad", "good": "glad"}[label]) for name, text, label in rows[:20]]
    write_set("moods", {"test": other}, folder, description="", features={**features, "label": Label(("sad", "glad"))})
    write_sets(folder)
    return folder


def lately(folder: Path, name: str, **changes: object) -> Recipe:
    """A recipe of two steps."""
    settings = {
        "run_dir": str(folder / name),
        "steps": 2,
        "evaluate": EvaluateConfig(every=2, batch_size=16, batches=1),
        "checkpoint": CheckpointConfig(every=2),
        "optimizer": OptimizerConfig(learning_rate=1e-2, schedule=ScheduleConfig(warmup_steps=0, decay_steps=10)),
    }
    return tiny.config(**(settings | changes))


@pytest.fixture(scope="session")
def decoder(folder) -> str:
    """A run that has learned the reviews' texts, byte by byte."""
    data = DataConfig(
        dataset="reviews", data_dir=str(folder), seq_len=32, test_split=None, tokenizer=TokenizerConfig(kind="bytes")
    )
    jaxllm.fit(lately(folder, "decoder", model=STACK, data=data))
    return str(folder / "decoder")


@pytest.fixture(scope="session")
def classifier(folder, decoder) -> str:
    """From the decoder, by LoRA."""
    jaxllm.fit(
        lately(
            folder,
            "classifier",
            pretrained=decoder,
            model=FromPretrained(),
            method=LoRA(rank=2),
            objective=TextClassification(),
            data=TaskDataConfig(dataset="reviews", data_dir=str(folder), seq_len=64),
        )
    )
    return str(folder / "classifier")


@pytest.fixture(scope="session")
def chatter(folder, decoder) -> str:
    """From the decoder, all of which learns."""
    jaxllm.fit(
        lately(
            folder,
            "chatter",
            pretrained=decoder,
            model=FromPretrained(),
            objective=InstructionTuning(answer_len=5),
            data=TaskDataConfig(dataset="chats", data_dir=str(folder), seq_len=128, test_split=None),
        )
    )
    return str(folder / "chatter")


def plain_loss(run: str, table_of: str) -> float:
    """Nats a token of the fixed text, said anew: a run's hidden states against the output matrix of another."""
    m, output = jaxllm.load(run), jaxllm.load(table_of)
    rows = text_rows(TEXT.read_text("utf-8"), m.tokenizer, 192, causal=True)
    arguments = {name: jnp.asarray(rows[name]) for name in ("tokens", "positions", "segment_ids")}
    hidden = jax.jit(lambda params: m.model.apply({"params": params}, unembed=False, **arguments).hidden)(m.params)
    logits = np.asarray(hidden, np.float64) @ np.asarray(output.params["embed"]["table"], np.float64).T
    log_probs = np.asarray(jax.nn.log_softmax(logits, axis=-1))
    said = np.take_along_axis(log_probs, rows["targets"][..., None], axis=-1)[..., 0]
    return float(-(said * rows["loss_weights"]).sum() / rows["loss_weights"].sum())
