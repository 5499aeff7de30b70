"""Instruction tuning: the loss of what the assistant says against NumPy and TRL, packed and not, in pieces; its rows; what it
writes."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxllm.data.rows import Share
from jaxllm.data.tfds_builder import write_set
from jaxllm.evaluate.metrics import Scores
from jaxllm.finetune.tasks.instruction import InstructionTuning
from jaxllm.finetune.tasks.task import is_task
from jaxllm.finetune.tasks.turns import encode_turns
from jaxllm.models import Transformer
from jaxllm.recipe import load
from jaxllm.recipe.job import by_item
from jaxllm.training import LossConfig
from tests.finetune.tasks.chats import (
    chat,
    decoder,
    opened,
    parameters,
    predicted,
    reference_log_probs,
    tokenizer,
    turn,
    write_sets,
)

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL, TASK = decoder(), InstructionTuning()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chats")
    write_sets(folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(folder, monkeypatch):
    monkeypatch.setenv("JAXLLM_CACHE", str(folder / "cache"))


def wanted_losses(numbers) -> tuple[np.ndarray, np.ndarray]:
    """-log p of what the assistant says, by each conversation alone: sum and number of tokens."""
    sums, counts = [], []
    for number in numbers:
        ids, said = encode_turns(tokenizer(), chat(number), None, "chat")
        log_probs = reference_log_probs(Transformer(MODEL), MODEL, np.array(ids, np.int32))
        sums.append(-(log_probs * said[1:]).sum())
        counts.append(sum(said[1:]))
    return np.array(sums), np.array(counts)


@pytest.mark.parametrize(("packing", "chunk"), [(True, None), (True, 16), (False, 32)])
def test_loss_is_the_mean_over_what_the_assistant_says(folder, packing, chunk):
    data = opened(folder, "chats", packing=packing)
    rows = TASK.rows(data, MODEL, "validation", seed=None)
    batch = rows.batch(np.arange(6), Share())
    assert batch["segment_ids"].max() > 1 if packing else batch["segment_ids"].max() == 1
    sums, counts = wanted_losses(range(24, 30))
    model = Transformer(MODEL)
    loss = jax.jit(lambda params, batch: TASK.make_loss(model, LossConfig(chunk=chunk))(params, batch, None))
    found = loss(parameters(MODEL), batch)
    assert found.weight == counts.sum()
    assert found.cross_entropy == pytest.approx(sums.sum(), rel=1e-5) and found.total == pytest.approx(sums.sum(), rel=1e-5)
    told, arrays = predicted(TASK.make_predict(model, LossConfig(chunk=chunk)), MODEL, batch)
    assert told.cross_entropy == pytest.approx(sums.sum(), rel=1e-5) and told.correct == found.correct
    by_number = by_item([jax.device_get(arrays)])
    scores = TASK.score(by_number, rows, data)
    assert isinstance(scores, Scores) and scores.count == 6
    assert scores.values()["perplexity"] == pytest.approx(np.exp(sums.sum() / counts.sum()), rel=1e-5)
    assert scores.statistics["perplexity"](np.array([2, 2, 5])) == pytest.approx(
        np.exp(sums[[2, 2, 5]].sum() / counts[[2, 2, 5]].sum()), rel=1e-5
    )
    assert scores.values()["accuracy"] == pytest.approx(float(found.correct) / counts.sum())
    assert TASK.show(by_number, rows, data).startswith(f"[{sums[0] / counts[0]:.2f}] ")


def test_gradient_in_pieces_is_that_of_the_whole(folder):
    batch = jax.device_put(TASK.rows(opened(folder, "chats"), MODEL, "train", seed=0).batch(np.arange(8), Share()))
    model = Transformer(MODEL)

    def gradient(chunk):
        loss = TASK.make_loss(model, LossConfig(chunk=chunk))
        return jax.jit(jax.grad(lambda params: loss(params, batch, None).total))(parameters(MODEL))

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), gradient(None), gradient(16))


def test_loss_is_that_of_trl():
    """Sums over all tokens of the batch, one text a row and all of them in one."""
    golden = dict(np.load(GOLDEN / "trl.npz"))
    with pytest.warns(UserWarning, match="no tokenizer"):
        base = load(GOLDEN / "peft" / "base" / "llama")
    run = jax.jit(TASK.make_loss(base.model, LossConfig()))
    lengths, width = golden["lengths"], golden["tokens"].shape[1]
    there = np.arange(width) < lengths[:, None]
    apart = {
        "tokens": golden["tokens"][:, :-1],
        "targets": golden["tokens"][:, 1:],
        "positions": np.broadcast_to(np.arange(width - 1), (len(lengths), width - 1)),
        "segment_ids": there[:, 1:].astype(np.int32),
        "loss_weights": golden["said"][:, 1:],
    }
    numbers = np.arange(1, len(lengths) + 1)[:, None] * apart["segment_ids"]
    packed = {name: array[there[:, 1:]][None] for name, array in (apart | {"segment_ids": numbers}).items()}
    for batch in (apart, packed):
        kinds = {name: np.float32 if name == "loss_weights" else np.int32 for name in batch}
        sums = run(base.params, {name: array.astype(kinds[name]) for name, array in batch.items()}, None)
        for name in ("sft", "sft_packed"):
            assert float(sums.cross_entropy / sums.weight) == pytest.approx(float(golden[name]), rel=1e-5)


def test_is_a_task_with_a_row_for_each_conversation(folder):
    data = opened(folder, "chats")
    assert is_task(TASK) and TASK.labels(data) is None and TASK.headed(MODEL) == MODEL
    TASK.check(MODEL, data.config, LossConfig(chunk=16))
    rows = TASK.rows(data, MODEL, "train", seed=3)
    assert rows.rows_per_epoch == 24 and not rows.table.cut.any()
    batch = rows.batch(np.arange(24), Share())
    assert set(batch) == set(TASK.fields(data.config))
    other = InstructionTuning(turns="last").rows(data, MODEL, "train", seed=3)
    assert other.batch(np.arange(24), Share())["loss_weights"].sum() < batch["loss_weights"].sum()
    # Another template gives other tokens, from a cache of its own.
    plain = TASK.rows(opened(folder, "chats", template=None), MODEL, "train", seed=3)
    assert plain.table.folder != rows.table.folder


def test_long_conversations(folder):
    data = opened(folder, "chats", seq_len=64)
    rows = TASK.rows(data, MODEL, "train", seed=0)
    lengths = [len(encode_turns(tokenizer(), chat(number), None, "chat").ids) for number in range(24)]
    assert rows.table.cut.tolist() == [
        lengths[number] > 64 for number in rows.table.records
    ] and 0 < rows.table.cut.sum() < len(rows.table)
    assert rows.table.lengths("").max() == 63
    # Whose answers all stand behind the end, none is left of.
    firsts = [encode_turns(tokenizer(), chat(number), None, "chat").said.index(True) for number in range(24)]
    short = TASK.rows(opened(folder, "chats", seq_len=40), MODEL, "train", seed=0)
    assert short.table.records.tolist() == [number for number, first in enumerate(firsts) if first < 40]
    assert 0 < len(short.table) < 24
    for limit in (64, 40):  # records that nothing is left of are too long, too
        others = sum(length > limit for length in lengths) - 1
        match = f"at most data.seq_len={limit} tokens, .* since data.too_long='refuse': c:.* has more, and {others} others"
        with pytest.raises(ValueError, match=match):
            TASK.rows(opened(folder, "chats", seq_len=limit, too_long="refuse"), MODEL, "train", seed=0)


def test_refusals(folder, tmp_path):
    config = opened(folder, "chats").config
    with pytest.raises(ValueError, match="InstructionTuning needs model.causal=True: got an encoder"):
        TASK.check(decoder(causal=False), config, LossConfig())
    with pytest.raises(ValueError, match="loss.chunk must divide data.seq_len: got loss.chunk=7"):
        TASK.check(MODEL, config, LossConfig(chunk=7))
    with pytest.raises(ValueError, match="has no feature 'messages'.*one built with --task chat"):
        TASK.rows(opened(folder, "texts"), MODEL, "train", seed=0)
    silent = [
        ("c:0", json.dumps([turn("user", "fish"), turn("assistant", "so")]), ""),
        ("c:1", json.dumps([turn("user", "a")]), ""),
    ]
    write_set("silent", {"train": silent, "validation": silent}, tmp_path, description="",
              features={"id": None, "messages": None, "tools": None})  # fmt: skip
    with pytest.raises(ValueError, match="^c:1: there must be a text to learn behind what is asked: got none"):
        TASK.rows(opened(tmp_path, "silent"), MODEL, "train", seed=0)


def test_writes_answers(folder):
    data = opened(folder, "chats")
    rows = TASK.rows(data, MODEL, "validation", seed=None)
    written = InstructionTuning(answer_len=5).write(Transformer(MODEL), parameters(MODEL), rows, data, examples=3)
    assert len(written.texts) == len(written.prompts) == 3
    assert written.references == [[chat(number)[-1]["content"]] for number in (24, 25, 26)]
    assert written.prompts[0] == chat(24)[-2]["content"] and written.scores().count == 3
