"""Small sets of conversations, preferences and pairs of texts, and a tokenizer with a chat template for them."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorflow_datasets as tfds

from jaxllm.data import TaskData, TaskDataConfig, open_task_data
from jaxllm.data.subword import SubwordTokenizer, train_subword
from jaxllm.data.tfds_builder import write_set
from jaxllm.finetune.tasks.task import Predict
from jaxllm.models import TransformerConfig
from tests.models.programs import parameters

WORDS = "what is a boat that went to sea with seven fish and some bread in it".split()
TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] }}<|end|>{% endgeneration %}{% else %}{{ message['content'] }}<|end|>{% endif %}"
    "{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def words(random: np.random.Generator, most: int) -> str:
    return " ".join(random.choice(WORDS, random.integers(1, most)))


def turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def chat(number: int) -> list[dict[str, Any]]:
    """One to three requests with their answers, some after a system message."""
    random = np.random.default_rng(number)
    messages = [turn("system", "be kind")] if number % 3 == 0 else []
    for _ in range(random.integers(1, 4)):
        messages += [turn("user", words(random, 6)), turn("assistant", words(random, 5))]
    return messages


def tokenizer(template: str | None = TEMPLATE) -> SubwordTokenizer:
    """Byte-level BPE, whose tokens hold the space before a word."""
    learned = train_subword("bpe", 290, [" ".join(WORDS)] * 4)
    learned._core.add_special_tokens(["<|start|>", "<|end|>"])
    return SubwordTokenizer(learned._core, {"eos": "<|end|>", "bos": "<|start|>"}, chat_template=template)


def write_sets(folder: Path) -> None:
    """`chats`, `pairs` (preferences) and `texts` (text to text)."""
    chats = [(f"c:{i}", json.dumps(chat(i)), "") for i in range(30)]
    kinds = {"id": None, "messages": None, "tools": None}
    write_set("chats", {"train": chats[:24], "validation": chats[24:]}, folder, description="", features=kinds)
    pairs = []
    for i in range(20):
        random = np.random.default_rng(100 + i)
        answers = [json.dumps([turn("assistant", words(random, 6))]) for _ in range(2)]
        pairs.append((f"p:{i}", json.dumps([turn("user", words(random, 7))]), *answers))
    kinds = {"id": None, "messages": None, "chosen": None, "rejected": None}
    write_set("pairs", {"train": pairs[:14], "validation": pairs[14:]}, folder, description="", features=kinds)
    texts = []
    for i in range(20):
        text = words(np.random.default_rng(200 + i), 9)
        wanted = " ".join(reversed(text.split()))
        texts.append((f"t:{i}", text, wanted, [wanted, text]))
    kinds = {"id": None, "text": None, "target": None, "targets": tfds.features.Sequence(tfds.features.Text())}
    write_set("texts", {"train": texts[:14], "validation": texts[14:]}, folder, description="", features=kinds)


def opened(folder: Path, dataset: str, template: str | None = TEMPLATE, **changes: Any) -> TaskData:
    settings: dict[str, Any] = {"seq_len": 160, "data_dir": str(folder)} | changes
    return open_task_data(TaskDataConfig(dataset=dataset, **settings), seed=0, tokenizer=tokenizer(template))


def decoder(**changes: Any) -> TransformerConfig:
    sizes: dict[str, Any] = dict(
        vocab_size=300, num_layers=2, num_heads=2, embed_dim=16, ffw_dim=24, context_len=160, init_std=0.2
    )
    return TransformerConfig(**(sizes | {"position": "rotary", "bias": False} | changes))


def predicted(predict: Predict, config: Any, batch: dict[str, np.ndarray]) -> Any:
    """What a task says of a batch, with numbers that show any parameter left out."""
    return jax.jit(predict)(parameters(config), batch)


def logits_of(model: Any, params: Any, *tokens: np.ndarray) -> np.ndarray:
    """Of rows that are filled up to a few lengths, so that few programs are compiled; padding stands behind."""
    width = [-(-array.shape[1] // 48) * 48 for array in tokens]
    wide = [np.pad(array, ((0, 0), (0, most - array.shape[1]))) for array, most in zip(tokens, width, strict=True)]
    there = [(np.arange(most) < array.shape[1])[None].astype(np.int32) for array, most in zip(tokens, width, strict=True)]
    names = ("segment_ids", "decoder_segment_ids")
    segments = dict(zip(names, there, strict=False))
    return np.asarray(_logits(model, params, wide, segments))[:, : tokens[-1].shape[1]]


@functools.partial(jax.jit, static_argnums=0)
def _logits(model: Any, params: Any, tokens: list[Any], segments: dict[str, Any]) -> Any:
    return model.apply({"params": params}, *tokens, **segments).logits


def reference_log_probs(model: Any, config: Any, ids: np.ndarray) -> np.ndarray:
    """log p of each next token of one text by itself, in float64 from the model's logits."""
    logits = np.asarray(logits_of(model, parameters(config), ids[None, :-1])[0], np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_probs[np.arange(len(ids) - 1), ids[1:]]
