"""Classes as words in a prompt: the gap of an encoder, the next word of a decoder, shots, and the loss against NumPy."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxllm.data import TokenizerConfig
from jaxllm.data.rows import Share
from jaxllm.data.tokenizer import ByteTokenizer
from jaxllm.finetune.tasks.task import is_task
from jaxllm.finetune.tasks.verbalizer import PromptClassification, filled
from jaxllm.models import HeadConfig, Transformer
from jaxllm.recipe.job import by_item
from jaxllm.training import LossConfig
from tests.finetune.tasks.chats import decoder, logits_of
from tests.models.programs import parameters

ENCODER = decoder(causal=False, vocab_size=320, bias=True, context_len=128, head=HeadConfig(transform=True, bias=True))
DECODER = decoder(vocab_size=320, context_len=256)
GAP = PromptClassification(prompt="{text} was {mask} .", words=("dull", "fine"))
NEXT = PromptClassification(prompt="{text} : ", words=("-", "+"))


def cases(open_task):
    yield GAP, ENCODER, open_task()
    yield NEXT, DECODER, open_task(tokenizer=TokenizerConfig(kind="bytes"), seq_len=256)


def test_the_loss_is_that_of_the_words_alone(open_task):
    for task, config, data in cases(open_task):
        assert is_task(task)
        task.check(config, data.config, LossConfig())
        rows, tok = task.rows(data, config, "validation", seed=None), data.tokenizer
        batch = rows.batch(np.arange(10), Share())
        assert (batch["loss_weights"].sum(axis=1) >= 1).any() and batch["loss_weights"].sum() == 10
        assert task.words is not None
        model, records = Transformer(config), list(data.records("validation"))[:10]
        wanted, chosen = [], []
        for record in records:
            if task is GAP:
                ids = tok.encode_special(f"{record['text']} was [MASK] .").ids
                place, words = ids.index(tok.mask_id), [tok.encode(word)[0] for word in task.words]
            else:
                ids = tok.encode(f"{record['text']} :")
                place, words = len(ids) - 1, [ord(word) for word in task.words]
            logits = np.asarray(logits_of(model, parameters(config), np.array([ids]))[0, place], np.float64)[words]
            wanted.append(np.log(np.exp(logits).sum()) - logits[record["label"]])
            chosen.append(logits.argmax())
        sums, found = jax.jit(task.make_predict(model, LossConfig()))(parameters(config), batch)
        assert sums.weight == 10 and float(sums.cross_entropy) == pytest.approx(sum(wanted), rel=1e-4)
        by_number = by_item([jax.device_get(found)])
        scores = task.score(by_number, rows, data).values()
        assert scores["accuracy"] == np.mean(np.array(chosen) == [record["label"] for record in records])
        loss = jax.jit(task.make_loss(model, LossConfig()))(parameters(config), batch, None)
        assert float(loss.total) == pytest.approx(float(sums.total), rel=1e-6)
        assert len(task.show(by_number, rows, data).splitlines()) == 5


def test_shots_stand_before_each_text(open_task):
    data = open_task(tokenizer=TokenizerConfig(kind="bytes"), seq_len=512)
    task = PromptClassification(prompt="{text} : ", words=("-", "+"), shots=4)
    rows = task.rows(data, decoder(vocab_size=320, context_len=512), "validation", seed=None)
    texts = [data.tokenizer.decode(rows.table.item(number, "tokens").tolist()) for number in range(2)]
    shown = texts[0].split("\n\n")[:-1]
    assert len(shown) == 4 and sorted(text[-1] for text in shown) == ["+", "+", "-", "-"]
    told = {f"{record['text']} : {'-+'[record['label']]}" for record in data.records("train")}
    assert set(shown) <= told
    for text, record in zip(texts, data.records("validation"), strict=False):
        assert text == "\n\n".join([*shown, f"{record['text']} :"])
    assert task.rows(data, DECODER, "validation", seed=None).words == (ord("-"), ord("+"))
    with pytest.raises(ValueError, match="objective.shots are taken from data.train_split='train', which must not be what is"):
        task.rows(data, decoder(vocab_size=320, context_len=512), "train", seed=None)


def test_parts_may_hold_what_looks_like_a_part():
    assert filled("{text} {mask}: {text_pair}", "{mask}", "{text}", "!") == "{mask} !: {text}"


def test_refusals(open_task):
    data = open_task()
    with pytest.raises(ValueError, match="objective.words must be one token each: 'dulllovely' is"):
        PromptClassification(prompt="{text} {mask}", words=("dulllovely", "fine")).rows(data, ENCODER, "train", seed=0)
    with pytest.raises(ValueError, match="objective.words must be different tokens: got fine, fine"):
        PromptClassification(prompt="{text} {mask}", words=("fine", "fine")).rows(data, ENCODER, "train", seed=0)
    with pytest.raises(ValueError, match="objective.words must be one for each class: got 1 for 2: bad, good"):
        PromptClassification(prompt="{text} {mask}", words=("fine",)).rows(data, ENCODER, "train", seed=0)
    with pytest.raises(ValueError, match="must have one {mask}, the gap to fill: got '{text}'"):
        PromptClassification(prompt="{text}").check(ENCODER, data.config, LossConfig())
    with pytest.raises(ValueError, match="must have no {mask}, since a decoder says what comes next"):
        GAP.check(DECODER, data.config, LossConfig())
    with pytest.raises(ValueError, match="{text_pair} exactly where data.pair_feature names a second text"):
        PromptClassification(prompt="{text} {text_pair}").check(DECODER, data.config, LossConfig())
    unmasked = dataclasses.replace(data, tokenizer=ByteTokenizer())
    with pytest.raises(ValueError, match="objective.prompt has {mask}, for which data.tokenizer must have a token"):
        PromptClassification(prompt="{text} {mask}", words=("-", "+")).rows(unmasked, ENCODER, "train", seed=0)
