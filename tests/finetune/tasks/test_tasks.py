"""Every task: packed equals one a row, on one device and on a mesh; accumulation; predictions in order; what it refuses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxllm.data import TaskDataConfig, open_task_data
from jaxllm.data.rows import Share
from jaxllm.data.tfds_builder import Label, write_set
from jaxllm.finetune import AdaLoRA, Bottleneck, LoRA, PrefixTuning, PromptTuning, adapt, begin_params
from jaxllm.finetune.tasks import Labels, Regression, SentenceEmbedding, TextClassification, TokenClassification
from jaxllm.models import HeadConfig, TransformerConfig, init_params, make_model, overlay, partition
from jaxllm.recipe.assemble import assemble
from jaxllm.recipe.job import by_item
from jaxllm.recipe.resolve import FromData, resolved
from jaxllm.sharding import MeshConfig, batch_sharding, make_mesh, use_mesh
from jaxllm.training import LossConfig
from tests.finetune.tasks.battery import DECODER, ENCODER, ROWS, Row
from tests.quick import some
from tests.recipe import tiny

LOSS = LossConfig()


def told(row, data):
    """The row's model with the head of its task, and the labels of its data."""
    labels = row.task.labels(data) or Labels(0)
    recipe = tiny.config(model=row.task.headed(row.model), objective=row.task, data=data.config)
    return resolved(recipe, FromData(320, None, labels.names, labels.count or None), 12).model


ALIKE = ("classes, mean", "classes, decoder", "words, decoder", "vectors, scores")
"""Rows of a task that has another."""


@pytest.fixture(params=some(ROWS, [name for name in ROWS if name not in ALIKE]))
def row(request):
    return ROWS[request.param]


def gradients(task, model, params, batch):
    def total(params, batch):
        sums = task.make_loss(model, LOSS)(params, batch, None)
        return sums.total / sums.weight, sums

    (loss, sums), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(params, batch)
    return float(loss), float(sums.correct), grads


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5, rtol=1e-4), a, b)


def test_packed_equals_one_a_row(row, open_task):
    """Loss, what was right, gradient and predictions; on one device, and packed for a mesh of eight."""
    packed, single = (open_task(row.dataset, packing=packing) for packing in (True, False))
    config = told(row, packed)
    model = make_model(config)
    params = init_params(model, jax.random.key(0))
    wanted = None
    for data, mesh, parts in ((single, None, 1), (packed, None, 1), (packed, MeshConfig(data=4, tensor=2), 4)):
        rows = row.task.rows(data, config, "train", seed=3)
        batch = rows.batch(np.arange(16), Share(parts, tuple(range(parts))))
        if mesh is None:
            found = gradients(row.task, model, params, batch)
        else:
            there = make_mesh(mesh)
            with use_mesh(there):
                found = gradients(row.task, model, params, jax.device_put(batch, batch_sharding(there)))
        wanted = wanted or found
        np.testing.assert_allclose(found[:2], wanted[:2], rtol=1e-5)
        close(found[2], wanted[2])
    assert wanted is not None and wanted[0] > 0
    names = [name for name in jax.tree.leaves(jax.tree.map(lambda g: float(jnp.abs(g).max()), wanted[2]))]
    assert min(names) >= 0 and max(names) > 1e-3

    told_by = []
    for data, size in ((single, 10), (packed, 16)):
        rows = row.task.rows(data, config, "validation", seed=None)
        predict = jax.jit(row.task.make_predict(model, LOSS))
        count = rows.rows_per_epoch
        batches = [rows.batch(np.arange(start, min(start + size, count)), Share()) for start in range(0, count, size)]
        found = by_item([jax.device_get(predict(params, batch)[1]) for batch in batches])
        told_by.append((found, row.task.score(found, rows, data).values(), row.task.show(found, rows, data)))
        assert sorted(set(found["items"])) == list(range(count)) and (np.diff(found["items"]) >= 0).all()
    close(told_by[0][0], told_by[1][0])
    assert told_by[0][1].keys() == told_by[1][1].keys() and set(told_by[0][1]) <= set(row.task.metrics)
    np.testing.assert_allclose(list(told_by[0][1].values()), list(told_by[1][1].values()), atol=1e-6)
    assert len(told_by[0][2].splitlines()) == 5


METHODS = {
    "lora": LoRA(rank=2, targets=("all-linear",)),
    "houlsby": Bottleneck(kind="houlsby", bottleneck_dim=3),
    "adalora": AdaLoRA(init_rank=3, target_rank=2),
    "prefix": PrefixTuning(tokens=3, initialization="random"),
    "prompt": PromptTuning(tokens=3),
}
EVERY = [(name, method) for name in ROWS for method in METHODS]
FEW = [(name, tuple(METHODS)[place % len(METHODS)]) for place, name in enumerate(name for name in ROWS if name not in ALIKE)]


@pytest.mark.parametrize(("name", "method"), some(EVERY, FEW))
def test_any_method_learns_any_task(name, method, open_task):
    """A fresh adapter leaves the loss as it is; a few steps of it alone, without the head, lower it; predictions are for all
    examples."""
    row, method = ROWS[name], METHODS[method]
    data = open_task(row.dataset, packing=False, seq_len=48)
    config = told(row, data)
    plain = make_model(config)
    model, base = adapt(plain, method), init_params(plain, jax.random.key(0))
    params = begin_params(model, jax.random.key(1), base)
    batch = row.task.rows(data, config, "train", seed=3).batch(np.arange(16), Share())
    optimizer = optax.adam(3e-2)

    def mean(model, params, batch):
        sums = row.task.make_loss(model, LOSS)(params, batch, None)
        return sums.total / sums.weight

    @jax.jit
    def step(learning, frozen, state, batch):
        loss, gradient = jax.value_and_grad(lambda learning: mean(model, overlay(frozen, learning), batch))(learning)
        updates, state = optimizer.update(gradient, state)
        return loss, optax.apply_updates(learning, updates), state

    learning, frozen = partition(params, lambda path: method.leaf in path.split("/"))
    state, losses = optimizer.init(learning), []
    for _ in range(8):
        loss, learning, state = step(learning, frozen, state, batch)
        losses.append(float(loss))
    assert min(losses[4:]) < losses[0] - 1e-4 and np.isfinite(losses).all()
    if not isinstance(method, PrefixTuning | PromptTuning):
        assert losses[0] == pytest.approx(float(jax.jit(functools.partial(mean, plain))(base, batch)), rel=1e-6)
    rows = row.task.rows(data, config, "validation", seed=None)
    everything = rows.batch(np.arange(rows.rows_per_epoch), Share())
    found = by_item([jax.device_get(jax.jit(row.task.make_predict(model, LOSS))(overlay(frozen, learning), everything)[1])])
    assert sorted(set(found["items"])) == list(range(rows.rows_per_epoch))
    assert all(np.isfinite(value) for value in row.task.score(found, rows, data).values().values())


def test_balanced_weights_need_every_class(open_task):
    """Which few examples may be without; a run without weights is told so."""
    data = open_task(train_split="train[:1]")
    task = TextClassification(class_weights="balanced")
    there = data.records("train[:1]")[0]["label"]
    missing = ("bad", "good")[1 - there]
    with pytest.raises(ValueError, match=f"needs examples of every class in train.*: there is none of {missing}; give the"):
        task.rows(data, task.headed(ENCODER), "train[:1]", seed=0)
    recipe = tiny.config(model=TextClassification().headed(ENCODER), objective=TextClassification(), data=data.config)
    told = [note for note in assemble(recipe).notes if "no example of" in note]
    assert told == [f"warning: train[:1] has no example of {missing}"]
    whole = dataclasses.replace(recipe, data=dataclasses.replace(data.config, train_split="train"))
    assert not [note for note in assemble(whole).notes if "no example of" in note]


def test_texts_that_are_left_out_are_of_no_class(tmp_path):
    rows = [(f"t:{i}", text, name) for i, (text, name) in enumerate([("a film", "a")] * 4 + [("a film " * 40, "b")] * 2)]
    kinds = {"id": None, "text": None, "label": Label(("a", "b"))}
    write_set("long", {"train": rows}, tmp_path, description="", features=kinds)
    config = TaskDataConfig(dataset="long", data_dir=str(tmp_path), seq_len=32, too_long="drop", validation_split=None)
    task = TextClassification(class_weights="balanced")
    with pytest.raises(ValueError, match="needs examples of every class in train: there is none of b"):
        task.rows(open_task_data(config, seed=0), task.headed(ENCODER), "train", seed=0)
    cut = open_task_data(dataclasses.replace(config, too_long="truncate"), seed=0)
    assert task.rows(cut, task.headed(ENCODER), "train", seed=0).class_weights == (0.75, 1.5)


def test_class_weights(open_task):
    """balanced: every class's texts weigh the same in sum; in training only."""
    data = open_task()
    task = TextClassification(class_weights="balanced")
    rows = task.rows(data, task.headed(ENCODER), "train", seed=0)
    batch = rows.batch(np.arange(120), Share())
    weights = [batch["loss_weights"][(batch["targets"] == label) & (batch["loss_weights"] > 0)].sum() for label in (0, 1)]
    assert batch["targets"].max() == 1
    np.testing.assert_allclose(weights, [60, 60], rtol=1e-5)
    given = dataclasses.replace(task, class_weights=(1.0, 3.0))
    batch = given.rows(data, task.headed(ENCODER), "train", seed=0).batch(np.arange(8), Share())
    assert set(batch["loss_weights"][batch["loss_weights"] > 0]) == {1.0, 3.0}
    batch = given.rows(data, task.headed(ENCODER), "train", seed=None).batch(np.arange(8), Share())
    assert set(batch["loss_weights"][batch["loss_weights"] > 0]) == {1.0}
    with pytest.raises(ValueError, match="one for each class: got 3 for 2: bad, good"):
        TextClassification(class_weights=(1.0, 1.0, 2.0)).labels(data)


@pytest.mark.parametrize(
    ("task", "dataset", "metrics"),
    [
        (TextClassification(), "reviews", ["accuracy", "macro_f1", "matthews"]),
        (TextClassification(several=True), "topics", ["accuracy", "macro_f1", "micro_f1"]),
        (SentenceEmbedding(), "scores", ["spearman", "pearson"]),
        (SentenceEmbedding(loss="cosine"), "scores", ["spearman", "pearson"]),
        (SentenceEmbedding(), "pairs", ["top_1"]),
    ],
)
def test_metrics_are_those_that_are_measured(task, dataset, metrics, open_task):
    data = open_task("scores", label_feature="none") if dataset == "pairs" else open_task(dataset)
    config = told(Row(task, ENCODER, dataset), data)
    rows = task.rows(data, config, "validation", seed=None)
    batch = rows.rows(np.arange(rows.rows_per_epoch))
    params = init_params(make_model(config), jax.random.key(0))
    found = jax.device_get(jax.jit(task.make_predict(make_model(config), LossConfig()))(params, batch)[1])
    named = task.metrics_of(data.config) if isinstance(task, SentenceEmbedding) else task.metrics
    assert list(named) == metrics and set(task.score(by_item([found]), rows, data).statistics) == set(metrics)


def test_several_classes_by_hand(open_task):
    """The loss is the mean of the classes' binary cross-entropies, with and without smoothing."""
    data, task = open_task("topics"), TextClassification(several=True)
    config = told(ROWS["several"], data)
    rows = task.rows(data, config, "validation", seed=None)
    batch = rows.batch(np.arange(12), Share())
    logits = np.random.default_rng(0).normal(size=(*batch["tokens"].shape, 3)).astype(np.float32)
    there = np.array([[label in data.records("validation")[n]["labels"] for label in range(3)] for n in range(12)], float)
    at = batch["items"] > 0
    mine = logits[at][np.argsort(batch["items"][at])].astype(np.float64)
    for smoothing in (0.0, 0.2):
        aims = there * (1 - smoothing) + smoothing / 2
        chances = 1 / (1 + np.exp(-mine))
        want = -(aims * np.log(chances) + (1 - aims) * np.log(1 - chances)).mean(axis=1).sum()
        sums = task.sums(jnp.asarray(logits), jax.device_put(batch), LossConfig(label_smoothing=smoothing))
        np.testing.assert_allclose(sums.total, want, rtol=1e-5)
    assert float(sums.correct) == ((mine > 0) == there).all(axis=1).sum() and float(sums.weight) == 12


def test_words_stand_at_their_first_tokens(open_task):
    """A label a word, none for what is cut off."""
    task = TokenClassification()
    for seq_len in (64, 10):
        data = open_task("names", seq_len=seq_len)
        rows = task.rows(data, told(ROWS["words"], data), "validation", seed=None)
        for number in range(len(rows.table)):
            record, at = rows.records[number], rows.table.item(number, "loss_weights") > 0
            words = rows.table.item(number, "words")[at]
            assert words.tolist() == list(range(len(words)))
            assert (len(words) == len(record["tags"])) or rows.table.cut[number]
            assert rows.table.item(number, "targets")[at].tolist() == record["tags"][: len(words)]
            firsts = [data.tokenizer.encode(record["tokens"][word])[0] for word in words]
            assert rows.table.item(number, "tokens")[at].tolist() == firsts
    assert rows.table.cut.any()
    perfect = {"items": [], "words": [], "labels": []}
    for number in range(len(rows.table)):
        at = rows.table.item(number, "loss_weights") > 0
        perfect["items"] += [number] * int(at.sum())
        perfect["words"] += rows.table.item(number, "words")[at].tolist()
        perfect["labels"] += rows.table.item(number, "targets")[at].tolist()
    values = task.score({name: np.array(v) for name, v in perfect.items()}, rows, data).values()
    assert values["entity_precision"] > 0.9 and values["entity_recall"] < 0.9  # what was cut off is not found


@pytest.mark.parametrize(
    "task, model, changes, message",
    [
        (TextClassification(), ENCODER, {}, "needs model.head.kind='sequence': got 'none'; name a pretrained model"),
        (
            TextClassification(),
            dataclasses.replace(DECODER, head=HeadConfig(kind="sequence")),
            {},
            "needs model.head.read='last'",
        ),
        (TokenClassification(), TextClassification().headed(ENCODER), {}, "needs model.head.kind='tokens': got 'sequence'"),
        (
            Regression(),
            Regression().headed(ENCODER),
            {"seq_len": 65},
            "data.seq_len must not exceed model.context_len: got 65 and 64",
        ),
    ],
)
def test_models_that_do_not_fit(task, model, changes, message):
    data = TaskDataConfig(dataset="reviews", **{"seq_len": 16, **changes})
    with pytest.raises(ValueError, match=message):
        task.check(model, data, LOSS)


def test_data_that_does_not_fit(open_task):
    config = TextClassification().headed(ENCODER)
    assert isinstance(config, TransformerConfig)
    with pytest.raises(ValueError, match="several classes each: set objective.several=True"):
        TextClassification().rows(open_task("topics"), config, "train", seed=0)
    with pytest.raises(ValueError, match="'text' of reviews holds whole texts; choose the feature with data.text_feature"):
        TokenClassification().rows(open_task(), config, "train", seed=0)
    with pytest.raises(ValueError, match="has no feature 'mark': it has id, label, text; choose with data.label_feature"):
        TextClassification().labels(open_task(label_feature="mark"))
    with pytest.raises(ValueError, match="must be a ClassLabel: it is Scalar"):
        TextClassification().labels(open_task("scores"))
    with pytest.raises(ValueError, match="has no loss.label_smoothing: got 0.1"):
        Regression().check(Regression().headed(ENCODER), open_task("scores").config, LossConfig(label_smoothing=0.1))
