"""What a loaded model says of new texts is what the task's evaluation says of the same texts in packed rows."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxllm.finetune.tasks import Mixture, QuestionAnswering
from jaxllm.models import HeadConfig, Transformer, init_params
from jaxllm.recipe import Loaded
from jaxllm.recipe.job import by_item
from jaxllm.training import LossConfig
from tests.finetune.tasks.battery import ENCODER, ROWS, Row
from tests.finetune.tasks.test_tasks import told


def opened(name, open_task):
    """A model with new parameters, and what the task finds in the validation split."""
    row = ROWS[name]
    data = open_task(row.dataset)
    config = told(row, data)
    model = Transformer(config)
    params = init_params(model, jax.random.key(0))
    rows = row.task.rows(data, config, "validation", seed=None)
    batch = rows.rows(np.arange(rows.rows_per_epoch))
    found = jax.device_get(jax.jit(row.task.make_predict(model, LossConfig()))(params, batch)[1])
    return Loaded(model=model, params=params, tokenizer=data.tokenizer, source="here"), data, rows, by_item([found])


@pytest.mark.parametrize("name", ["classes", "classes, decoder", "classes, mean", "pairs"])
def test_labels_and_scores_are_those_of_the_task(name, open_task):
    loaded, data, rows, found = opened(name, open_task)
    records = [rows.records[int(rows.table.records[item])] for item in found["items"]]
    logits = found["logits"]
    if name == "pairs":
        texts = [(record["text"], record["text_pair"]) for record in records]
        np.testing.assert_allclose(loaded.score(texts), logits[:, 0], rtol=1e-5, atol=1e-5)
        with pytest.raises(ValueError, match="gives one number, by m.score"):
            loaded.classify(texts)
        return
    texts = [record["text"] for record in records]
    np.testing.assert_allclose(loaded.probabilities(texts), jax.nn.softmax(logits, axis=-1), atol=1e-5)
    labels = [("bad", "good")[row.argmax()] for row in logits]
    assert [label for label, _ in loaded.classify(texts)] == labels
    assert loaded.classify(texts[0])[0][1] == pytest.approx(float(jax.nn.softmax(logits[0]).max()), abs=1e-5)
    with pytest.raises(ValueError, match="has labels, by m.classify"):
        loaded.score(texts)


def test_several_labels_are_each_by_themselves(open_task):
    """As its head says; of a run whose model was given without it, as the task of its objective says."""
    loaded, _, rows, found = opened("several", open_task)
    config = loaded.model.config
    plain = Transformer(dataclasses.replace(config, head=dataclasses.replace(config.head, several=False)))
    run = dataclasses.make_dataclass("Run", ["objective"])
    task = ROWS["several"].task
    trained = [dataclasses.replace(loaded, model=plain) for _ in range(3)]
    for each, objective in zip(trained, (None, task, Mixture(task=task, others=("more",))), strict=True):
        object.__setattr__(each, "recipe", run(objective))
    texts = [rows.records[int(rows.table.records[item])]["text"] for item in found["items"]]
    for each in (loaded, *trained[1:]):
        np.testing.assert_allclose(each.probabilities(texts), jax.nn.sigmoid(found["logits"]), atol=1e-5)
    np.testing.assert_allclose(trained[0].probabilities(texts), jax.nn.softmax(found["logits"], axis=-1), atol=1e-5)


@pytest.mark.parametrize("name", ["words", "words, decoder"])
def test_words_have_the_labels_of_the_task(name, open_task):
    loaded, data, rows, found = opened(name, open_task)
    sentences = ROWS[name].task._sentences(found, rows, data)
    words = [words for words, _, _ in sentences]
    assert loaded.tag(words) == [list(zip(words, labels, strict=True)) for words, _, labels in sentences]
    assert len({label for _, _, labels in sentences for label in labels}) > 1
    assert loaded.tag(" ".join(words[0])) == loaded.tag(words[:1])


def test_a_long_text_is_tagged_to_its_end(open_task):
    loaded, *_ = opened("words", open_task)
    (tagged,) = loaded.tag(["the sea " * 100])
    assert len(tagged) == 200 and all(word in ("the", "sea") for word, _ in tagged)


def test_answers_are_those_of_the_task(open_task, monkeypatch):
    row = Row(QuestionAnswering(stride=8, max_question=16, max_answer=30), ENCODER, "questions")
    monkeypatch.setitem(ROWS, "long answers", row)
    monkeypatch.setattr("jaxllm.recipe.reading.STRIDE", 8)
    monkeypatch.setattr("jaxllm.recipe.reading.MAX_QUESTION", 16)
    loaded, _, rows, found = opened("long answers", open_task)
    wanted = row.task.answers(found, rows)
    for number, answer in list(wanted.items())[:8]:
        record = rows.records[number]
        given = loaded.answer(record["question"], record["context"])
        assert given.text == answer.text and given.score == pytest.approx(answer.score, abs=1e-4)
    assert any(answer.text for answer in wanted.values())


def test_a_model_without_the_head_is_refused():
    loaded = Loaded(model=Transformer(ENCODER), params={}, tokenizer=None, source="here")
    for call in (loaded.classify, loaded.score, loaded.tag, lambda text: loaded.answer(text, text)):
        with pytest.raises(ValueError, match="needs a model of text with a .* head: here has a 'none' head"):
            call("a text")
    headed = dataclasses.replace(ENCODER, head=HeadConfig(kind="tokens", num_labels=2))
    with pytest.raises(ValueError, match="tag needs a tokenizer"):
        dataclasses.replace(loaded, model=Transformer(headed)).tag("a text")
