"""Preference tuning: each loss against NumPy and TRL, what the reference is, in pieces; its rows and its metrics."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.data.rows import Share
from jaxllm.finetune import LoRA, adapt
from jaxllm.finetune.tasks.preference import PreferenceTuning
from jaxllm.finetune.tasks.preference_loss import Answers, log1mexp, preferences
from jaxllm.finetune.tasks.task import is_task
from jaxllm.finetune.tasks.turns import encode_turns
from jaxllm.models import Transformer, overlay
from jaxllm.recipe import load
from jaxllm.recipe.job import by_item
from jaxllm.training import LossConfig
from tests.finetune.programs import fresh, moved
from tests.finetune.tasks.chats import decoder, opened, parameters, reference_log_probs, tokenizer, write_sets

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL = decoder()
LORA = LoRA(rank=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    write_sets(folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(folder, monkeypatch):
    monkeypatch.setenv("JAXLLM_CACHE", str(folder / "cache"))


def log_sigmoid(x):
    return -np.logaddexp(0, -x)


def numbers(seed=0):
    random = np.random.default_rng(seed)
    log_probs, reference = (random.normal(-20, 6, (5, 2)).astype(np.float32) for _ in range(2))
    return Answers(jnp.asarray(log_probs), jnp.asarray(random.integers(1, 9, (5, 2)), jnp.float32)), jnp.asarray(reference)


@pytest.mark.parametrize(("kind", "smoothing"), [("sigmoid", 0.0), ("sigmoid", 0.2), ("hinge", 0.0), ("ipo", 0.0)])
def test_losses_are_those_of_the_papers(kind, smoothing):
    answers, reference = numbers()
    found = preferences(kind, 0.3, smoothing, answers, reference)
    a, b = (np.asarray(answers.log_probs, np.float64) - np.asarray(reference, np.float64)).T
    lengths = np.asarray(answers.tokens, np.float64)
    margin = 0.3 * (a - b)
    wanted = {
        "sigmoid": -(1 - smoothing) * log_sigmoid(margin) - smoothing * log_sigmoid(-margin),
        "hinge": np.maximum(0, 1 - margin),
        "ipo": (a / lengths[:, 0] - b / lengths[:, 1] - 1 / 0.6) ** 2,
    }[kind]
    np.testing.assert_allclose(found.losses, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.rewards, 0.3 * np.stack([a, b], axis=1), rtol=1e-5)


def test_odds_ratio():
    answers, _ = numbers()
    found = preferences("orpo", 0.3, 0.0, answers, None)
    mean = np.asarray(answers.log_probs, np.float64) / np.asarray(answers.tokens, np.float64)
    odds = np.log(np.exp(mean) / (1 - np.exp(mean)))
    np.testing.assert_allclose(found.losses, -0.3 * log_sigmoid(odds[:, 0] - odds[:, 1]), rtol=1e-5)
    for x in (-1e-6, -0.5, -0.8, -20.0):
        assert float(log1mexp(jnp.float32(x))) == pytest.approx(np.log(-np.expm1(np.float64(np.float32(x)))), rel=1e-5)
    certain = Answers(jnp.zeros((1, 2)), jnp.ones((1, 2)))
    gradient = jax.grad(lambda x: preferences("orpo", 0.1, 0.0, certain._replace(log_probs=x), None).losses.sum())(
        jnp.zeros((1, 2))
    )
    assert np.isfinite(gradient).all()


@pytest.fixture(scope="module")
def golden():
    with pytest.warns(UserWarning, match="no tokenizer"):
        base = load(GOLDEN / "peft" / "base" / "llama")
    return dict(np.load(GOLDEN / "trl.npz")), base.model, base.params


def pairs_of(golden) -> dict[str, np.ndarray]:
    batch = {}
    for name, prefix in (("chosen", ""), ("rejected", "rejected_")):
        tokens, answer, lengths = (golden[f"{name}_{key}"] for key in ("tokens", "answer", "lengths"))
        tokens, answer = (np.pad(array, ((0, 0), (0, 13 - array.shape[1]))) for array in (tokens, answer))
        there = (np.arange(1, 13) < lengths[:, None]).astype(np.int32)
        positions = np.broadcast_to(np.arange(12, dtype=np.int32), there.shape)
        arrays = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "positions": positions, "segment_ids": there}
        batch |= {f"{prefix}{key}": array.astype(np.int32) for key, array in arrays.items()}
        batch[f"{prefix}loss_weights"] = answer[:, 1:].astype(np.float32)
    return batch | {"reference": golden["reference"], "items": np.arange(1, 5)[:, None] * batch["segment_ids"]}


@pytest.mark.parametrize("kind", ["sigmoid", "hinge", "ipo", "orpo"])
@pytest.mark.parametrize("chunk", [None, 5])
def test_losses_are_those_of_trl(golden, kind, chunk):
    """Each pair by itself, so that TRL's mean over a batch's tokens in ORPO is one over a pair's."""
    given, model, params = golden
    task = PreferenceTuning(kind=kind, beta=float(given["beta"]), learn_prompt=kind == "orpo")
    predict = jax.jit(task.make_predict(model, LossConfig(chunk=chunk)))
    batch = pairs_of(given)
    sums, found = predict(params, batch)
    wanted = given["orpo" if kind == "orpo" else f"dpo_{kind}"]
    assert sums.weight == 4 and float(sums.total) == pytest.approx(wanted.sum(), rel=1e-5)
    rewards = given["orpo_rewards" if kind == "orpo" else "rewards"]
    np.testing.assert_allclose(found["rewards"], rewards, rtol=1e-5, atol=1e-5)
    assert float(sums.correct) == (rewards[:, 0] > rewards[:, 1]).sum()
    for pair in range(2):
        one = {name: array[pair : pair + 1] for name, array in batch.items()}
        assert float(predict(params, one)[0].total) == pytest.approx(wanted[pair], rel=1e-5)


def test_rows_have_both_answers(folder):
    data, task = opened(folder, "pairs"), PreferenceTuning()
    rows = task.rows(data, MODEL, "train", seed=1)
    assert is_task(task) and rows.rows_per_epoch == 14 and not rows.packed
    batch = rows.batch(np.arange(5), Share())
    assert set(batch) == set(task.fields(data.config)) and batch["tokens"].shape == batch["rejected_tokens"].shape
    evaluated = task.rows(data, MODEL, "train", seed=None).batch(np.arange(14), Share())
    for row in (0, 5):
        record = data.records("train")[row]
        messages = [*json.loads(record["messages"]), *json.loads(record["rejected"])]
        ids, said = encode_turns(tokenizer(), messages, None, "chat", 1)
        there = evaluated["rejected_segment_ids"][row] > 0
        assert evaluated["rejected_tokens"][row][there].tolist() == ids[:-1]
        assert evaluated["rejected_loss_weights"][row][there].tolist() == said[1:]


def test_reference_is_the_model_without_its_method(folder):
    """A fresh adapter has no rewards; a moved one is compared with the base, in one step and by numbers computed before."""
    data, task = opened(folder, "pairs"), PreferenceTuning(beta=0.5)
    rows = task.rows(data, MODEL, "validation", seed=None)
    batch = rows.batch(np.arange(6), Share())
    model = adapt(Transformer(MODEL), LORA)
    begin = fresh(LORA, MODEL)
    predict = jax.jit(task.make_predict(model, LossConfig()))
    sums, found = predict(begin, batch)
    assert float(sums.total / sums.weight) == pytest.approx(np.log(2), rel=1e-5)
    np.testing.assert_allclose(found["rewards"], 0, atol=1e-5)
    changed = moved(LORA, begin)
    sums, found = predict(changed, batch)
    assert np.abs(found["rewards"]).min() > 1e-4
    kept = task.referenced(rows, model, begin, LossConfig(), batch_size=4)
    later = kept.batch(np.arange(6), Share())
    assert later["reference"].shape == (len(batch["tokens"]), 2)
    # The base's own numbers, one text at a time.
    record = data.records("validation")[2]
    messages = [*json.loads(record["messages"]), *json.loads(record["chosen"])]
    ids, said = encode_turns(tokenizer(), messages, None, "chat", 1)
    log_probs = reference_log_probs(Transformer(MODEL), MODEL, np.array(ids, np.int32))
    assert later["reference"][2, 0] == pytest.approx((log_probs * said[1:]).sum(), rel=1e-5)
    again, same = predict(changed, later)
    assert float(again.total) == pytest.approx(float(sums.total), rel=1e-5)
    np.testing.assert_allclose(same["rewards"], found["rewards"], atol=1e-4)
    shuffled = dataclasses.replace(kept, seed=4).batch(np.array([3]), Share())
    assert shuffled["reference"][0].tolist() in later["reference"].tolist()
    assert task.referenced(rows, model, changed, LossConfig()).table.folder == kept.table.folder  # the base is the same


def test_no_gradient_passes_through_the_reference(folder):
    """The gradient by an adapter is that with the reference as given numbers."""
    task = PreferenceTuning()
    rows = task.rows(opened(folder, "pairs"), MODEL, "validation", seed=None)
    model = adapt(Transformer(MODEL), LORA)
    params = moved(LORA, fresh(LORA, MODEL))
    kept = task.referenced(rows, model, params, LossConfig())
    loss = task.make_loss(model, LossConfig())
    gradients = [
        jax.jit(jax.grad(lambda own, batch: loss(overlay(params, own), batch, None).total))(
            params, source.batch(np.arange(6), Share())
        )
        for source in (rows, kept)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), *gradients)


def test_a_model_that_learns_itself_needs_numbers(folder):
    rows = PreferenceTuning().rows(opened(folder, "pairs"), MODEL, "validation", seed=None)
    batch = rows.batch(np.arange(2), Share())
    for model in (Transformer(MODEL), adapt(Transformer(decoder(tie_embeddings=False)), LoRA(rank=2, targets=("unembed",)))):
        loss = PreferenceTuning().make_loss(model, LossConfig())
        with pytest.raises(
            ValueError, match="cannot be had by leaving a method out.*computed once.*or use objective.kind='orpo'"
        ):
            jax.eval_shape(lambda params, loss=loss: loss(params, batch, None), parameters(model.config))
    loss = PreferenceTuning(kind="orpo").make_loss(Transformer(MODEL), LossConfig())
    jax.eval_shape(lambda params: loss(params, batch, None), parameters(MODEL))


def test_scores(folder):
    data, task = opened(folder, "pairs"), PreferenceTuning(kind="orpo")
    rows = task.rows(data, MODEL, "validation", seed=None)
    sums, found = jax.jit(task.make_predict(Transformer(MODEL), LossConfig()))(
        parameters(MODEL), rows.batch(np.arange(6), Share())
    )
    by_number = by_item([jax.device_get(found)])
    scores = task.score(by_number, rows, data).values()
    assert list(scores) == list(task.metrics)
    chosen, rejected = np.asarray(by_number["rewards"], np.float64).T
    assert scores["rewards/margins"] == pytest.approx((chosen - rejected).mean()) and len(chosen) == 6
    assert scores["accuracy"] == pytest.approx(float(sums.correct) / 6)
    assert task.show(by_number, rows, data).startswith(f"[{chosen[0]:+.3f} {rejected[0]:+.3f}] ")


def test_refusals():
    with pytest.raises(ValueError, match="objective.beta must be positive: got 0"):
        PreferenceTuning(beta=0.0)
    with pytest.raises(ValueError, match="objective.label_smoothing is for kind='sigmoid': got kind='hinge'"):
        PreferenceTuning(kind="hinge", label_smoothing=0.1)
    with pytest.raises(ValueError, match=r"objective.label_smoothing must be in \[0, 0.5\): got 0.5"):
        PreferenceTuning(label_smoothing=0.5)
    with pytest.raises(ValueError, match="objective.learn_prompt is for kind='orpo'"):
        PreferenceTuning(learn_prompt=True)
