"""Small sets of labelled examples of every kind, whose labels follow from their words."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxllm.data import TaskData, TaskDataConfig, TokenizerConfig, open_task_data
from jaxllm.data.tfds_builder import Label, write_set

GOOD, BAD = "fine lovely bright funny".split(), "dull awful slow grim".split()
PLAIN = "the film was and it had a story of some people who went to sea".split()
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def sentence(number: int) -> tuple[str, int]:
    """A text of 3 to 20 words, and whether it is kind."""
    random = np.random.default_rng(number)
    label = int(random.integers(2))
    words = [*random.choice(PLAIN, random.integers(2, 17)), *random.choice((BAD, GOOD)[label], random.integers(1, 4))]
    return " ".join(random.permutation(words)), label


def tagged(number: int) -> tuple[list[str], list[str]]:
    """Words and their tags; names begin with a capital letter."""
    random = np.random.default_rng(number)
    words, tags = [], []
    for _ in range(random.integers(1, 5)):
        plain = list(random.choice(PLAIN, random.integers(1, 4)))
        kind = random.choice(["PER", "LOC"])
        name = [("Mary" if kind == "PER" else "Bergen") + str(i) for i in range(random.integers(1, 3))]
        words += [*plain, *name]
        tags += ["O"] * len(plain) + [f"{'B' if i == 0 else 'I'}-{kind}" for i in range(len(name))]
    return words, tags


def question(number: int) -> tuple[str, str, dict]:
    """A context of up to a hundred words, a question, and its answer; every fifth has none."""
    random = np.random.default_rng(number)
    words = list(random.choice(PLAIN, random.integers(5, 100)))
    name = f"Mary{number} of Bergen"
    if number % 5 == 0:
        return " ".join(words), "who went to sea?", {"text": [], "start": []}
    words.insert(int(random.integers(len(words))), name)
    context = " ".join(words)
    return context, "who went to sea?", {"text": [name, f"Mary{number}"], "start": [context.index(name)] * 2}


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    texts = [(f"t:{i}", *sentence(i)) for i in range(160)]
    kinds = {"id": None, "text": None, "label": Label(("bad", "good"))}
    rows = [(name, text, ("bad", "good")[label]) for name, text, label in texts]
    write_set("reviews", {"train": rows[:120], "validation": rows[120:]}, folder, description="", features=kinds)
    scores = [(name, text, sentence(i + 500)[0], float(label) + i / 100) for i, (name, text, label) in enumerate(texts)]
    kinds = {"id": None, "text": None, "text_pair": None, "label": tfds.features.Scalar(np.float32)}
    write_set("scores", {"train": scores[:120], "validation": scores[120:]}, folder, description="", features=kinds)
    topics = [(name, text, [t for t in ("sea", "story", "people") if t in text.split()]) for name, text, _ in texts]
    several = tfds.features.Sequence(tfds.features.ClassLabel(names=["sea", "story", "people"]))
    kinds = {"id": None, "text": None, "labels": several}
    write_set("topics", {"train": topics[:120], "validation": topics[120:]}, folder, description="", features=kinds)
    names = [(f"n:{i}", *tagged(i)) for i in range(100)]
    tags = tfds.features.Sequence(tfds.features.ClassLabel(names=list(TAGS)))
    kinds = {"id": None, "tokens": tfds.features.Sequence(tfds.features.Text()), "tags": tags}
    write_set("names", {"train": names[:80], "validation": names[80:]}, folder, description="", features=kinds)
    questions = [(f"q:{i}", *question(i)) for i in range(60)]
    parts = {"text": tfds.features.Sequence(tfds.features.Text()), "start": tfds.features.Sequence(np.int32)}
    kinds = {"id": None, "context": None, "question": None, "answers": tfds.features.FeaturesDict(parts)}
    write_set("questions", {"train": questions[:40], "validation": questions[40:]}, folder, description="", features=kinds)
    return folder


@pytest.fixture
def task_config(sets: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TaskDataConfig]:
    monkeypatch.setenv("JAXLLM_CACHE", str(sets / "cache"))

    def config(dataset: str = "reviews", **changes: object) -> TaskDataConfig:
        named = {"scores": {"pair_feature": "text_pair"}, "topics": {"label_feature": "labels"}}
        named["names"] = {"text_feature": "tokens", "label_feature": "tags"}
        settings = {"seq_len": 64, "tokenizer": TokenizerConfig(kind="wordpiece", vocab_size=300), **named.get(dataset, {})}
        return TaskDataConfig(dataset=dataset, data_dir=str(sets), **(settings | changes))

    return config


@pytest.fixture
def open_task(task_config: Callable[..., TaskDataConfig]) -> Callable[..., TaskData]:
    return lambda dataset="reviews", **changes: open_task_data(task_config(dataset, **changes), seed=0)
