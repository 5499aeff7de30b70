"""Windows over long contexts, the best span over all of them, and no answer."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxllm.data.tfds_builder import write_set
from jaxllm.finetune.tasks import QuestionAnswering
from jaxllm.finetune.tasks.question import EncodeQuestion, best_spans, span_loss
from jaxllm.finetune.tasks.task import tell_cut
from tests.finetune.tasks.battery import ENCODER

TASK = QuestionAnswering(stride=8, max_question=16, max_answer=12)


@pytest.fixture
def opened(open_task):
    data = open_task("questions")
    return data, TASK.rows(data, TASK.headed(ENCODER), "validation", seed=None)


def whole(rows):
    return rows.rows(np.arange(rows.rows_per_epoch))


def test_windows_cover_the_context(opened):
    data, rows = opened
    table = rows.table
    assert len(table) > len(rows.records)  # some contexts take several
    for number, record in enumerate(rows.records):
        windows = np.flatnonzero(table.records == number).tolist()
        seen = np.zeros(len(record["context"]), int)
        for window in windows:
            begins, ends = table.item(window, "char_begins"), table.item(window, "char_ends")
            ids, types = table.item(window, "tokens"), table.item(window, "token_types")
            assert len(ids) <= 64 and (types[ends > 0] == 1).all() and types[0] == 0
            for begin, end in zip(begins[ends > 0] - 1, ends[ends > 0], strict=True):
                seen[begin:end] += 1
        assert all(seen[i] > 0 for i, c in enumerate(record["context"]) if c != " ")
        joined = data.tokenizer.decode(table.item(windows[0], "tokens").tolist())
        assert joined.startswith("who went to sea")


def test_a_question_that_is_cut_is_told_as_such(opened):
    """Once, however many windows its context has; a longer row would not help."""
    data, rows = opened
    task = dataclasses.replace(TASK, max_question=2)
    count = len(rows.records)
    told = tell_cut(task.rows(data, task.headed(ENCODER), "validation", seed=None))
    why = "longer than 64 tokens, or in a part than the task's limit for that,"
    assert told == f"validation: {count} of {count} examples are {why} and cut"
    assert tell_cut(rows) is None


def test_perfect_logits_give_perfect_answers(opened):
    data, rows = opened
    batch = whole(rows)
    logits = np.zeros((*batch["tokens"].shape, 2), np.float32)
    for row in range(len(logits)):
        logits[row, batch["starts"][row], 0] = logits[row, batch["ends"][row], 1] = 9
    device = {name: jnp.asarray(value) for name, value in batch.items()}
    found = {name: np.asarray(value) for name, value in best_spans(jnp.asarray(logits), device, TASK.max_answer).items()}
    found["items"] = batch["items"] - 1
    assert TASK.score(found, rows, data).values() == {"exact_match": 1.0, "f1": 1.0}
    answers = TASK.answers(found, rows)
    assert [answer.text == "" for answer in answers.values()] == [not record["answers"]["text"] for record in rows.records]
    assert float(span_loss(jnp.asarray(logits), device).total) < 0.02 * len(logits)
    wrong = {**found, "none": found["none"] + 100}
    share = np.mean([not record["answers"]["text"] for record in rows.records])
    assert TASK.score(wrong, rows, data).values()["exact_match"] == share


def test_best_span_is_the_best(opened):
    """Against all pairs, one by one."""
    _, rows = opened
    batch = whole(rows)
    logits = np.random.default_rng(0).normal(size=(*batch["tokens"].shape, 2)).astype(np.float32)
    device = {name: jnp.asarray(value) for name, value in batch.items()}
    found = best_spans(jnp.asarray(logits), device, 3)
    for row in range(6):
        inside = np.flatnonzero(batch["char_ends"][row])
        pairs = {(a, b): logits[row, a, 0] + logits[row, b, 1] for a in inside for b in inside if 0 <= b - a < 3}
        a, b = max(pairs, key=pairs.__getitem__)
        np.testing.assert_allclose(found["score"][row], pairs[a, b], rtol=1e-6)
        assert (found["begin"][row], found["end"][row]) == (batch["char_begins"][row, a] - 1, batch["char_ends"][row, b])


def test_answers_as_in_squad(open_task):
    """TFDS's own set calls the start `answer_start`."""
    data = open_task("questions")
    one = EncodeQuestion(data.tokenizer, 64, 8, 16, True)
    for record in data.records("validation"):
        answers = {"text": record["answers"]["text"], "answer_start": record["answers"]["start"]}
        for mine, other in zip(one(record), one(record | {"answers": answers}), strict=True):
            assert all(np.array_equal(mine.arrays[name], other.arrays[name]) for name in mine.arrays)


def test_a_field_that_is_not_there_is_named(open_task, tmp_path):
    answer = {"text": tfds.features.Sequence(tfds.features.Text())}
    kinds = {"id": None, "context": None, "question": None, "answers": tfds.features.FeaturesDict(answer)}
    rows = [("q:1", "Anna went to sea", "who went to sea?", {"text": ["Anna"]})]
    write_set("nowhere", {"train": rows, "validation": rows}, tmp_path, description="", features=kinds)
    data = open_task(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"q:1: a record must have 'start': it has answers\.text, context, id, question; name"):
        TASK.rows(data, TASK.headed(ENCODER), "train", seed=0)


def test_refusals(open_task):
    with pytest.raises(ValueError, match="data.seq_len=14 must have room for a question of .* objective.stride=8: raise"):
        TASK.rows(open_task("questions", seq_len=14), TASK.headed(ENCODER), "train", seed=0)
    with pytest.raises(ValueError, match="has no feature 'context'"):
        TASK.labels(open_task())
    with pytest.raises(ValueError, match="objective.max_answer must be at least 1: got 0"):
        QuestionAnswering(max_answer=0)
