"""Text to text by a decoder behind an encoder and by a decoder alone: rows, losses one text at a time, and what is written."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jaxllm.data.rows import Share
from jaxllm.finetune.tasks.task import is_task
from jaxllm.finetune.tasks.text_to_text import TextToText, fitted
from jaxllm.finetune.tasks.written import Written, bleu, rouge_l
from jaxllm.models import EncoderDecoder, EncoderDecoderConfig, HeadConfig, Transformer
from jaxllm.recipe.job import by_item
from jaxllm.training import LossConfig
from tests.finetune.tasks.chats import decoder, logits_of, opened, parameters, reference_log_probs, tokenizer, write_sets

ALONE = decoder()
BEHIND = EncoderDecoderConfig(
    encoder=decoder(causal=False, num_layers=1, head=HeadConfig(kind="none")),
    decoder=decoder(num_layers=1, cross_attention=True),
    start_id=0,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_sets(folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(folder: Path, monkeypatch):
    monkeypatch.setenv("JAXLLM_CACHE", str(folder / "cache"))


def test_a_decoder_learns_the_target_behind_the_prompt(folder):
    data, task = opened(folder, "texts"), TextToText(prompt="Text: {text}\nBack:")
    assert is_task(task)
    task.check(ALONE, data.config, LossConfig())
    rows = task.rows(data, ALONE, "validation", seed=None)
    batch = rows.batch(np.arange(6), Share())
    assert set(batch) == set(task.fields(data.config)) | {"items"} and batch["segment_ids"].max() > 1
    tok, sums, count = tokenizer(), 0.0, 0
    for record in data.records("validation"):
        asked = tok.encode(f"Text: {record['text']}\nBack:")
        ids = [*asked, *tok.encode(record["target"]), tok.eos_id]
        log_probs = reference_log_probs(Transformer(ALONE), ALONE, np.array(ids, np.int32))
        sums, count = sums - log_probs[len(asked) - 1 :].sum(), count + len(ids) - len(asked)
    loss = jax.jit(task.make_loss(Transformer(ALONE), LossConfig()))(parameters(ALONE), batch, None)
    assert loss.weight == count and float(loss.total) == pytest.approx(sums, rel=1e-5)


@pytest.mark.parametrize("chunk", [None, 8])
def test_a_decoder_behind_an_encoder(folder, chunk):
    data, task = opened(folder, "texts"), TextToText(prompt="back: {text}", target_len=32)
    task.check(BEHIND, data.config, LossConfig(chunk=chunk))
    rows = task.rows(data, BEHIND, "validation", seed=None)
    batch = rows.batch(np.arange(6), Share())
    assert batch["tokens"].shape[1] >= 16 and batch["decoder_tokens"].shape[1] == batch["decoder_loss_weights"].shape[1]
    model, tok, sums, count = EncoderDecoder(BEHIND), tokenizer(), 0.0, 0
    for record in data.records("validation"):
        read, wanted = tok.encode(f"back: {record['text']}"), tok.encode(record["target"])
        logits = np.asarray(
            logits_of(model, parameters(BEHIND), np.array([read]), np.array([[0, *wanted[:-1]]]))[0], np.float64
        )
        log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        sums, count = sums - log_probs[np.arange(len(wanted)), wanted].sum(), count + len(wanted)
    config = LossConfig(chunk=chunk)
    loss = jax.jit(task.make_loss(model, config))(parameters(BEHIND), batch, None)
    assert loss.weight == count and float(loss.total) == pytest.approx(sums, rel=1e-5)
    told, found = jax.jit(task.make_predict(model, config))(parameters(BEHIND), batch)
    assert float(told.cross_entropy) == pytest.approx(sums, rel=1e-5)
    by_number = by_item([jax.device_get(found)])
    scores = task.score(by_number, rows, data)
    assert scores.count == 6 and scores.values()["perplexity"] == pytest.approx(np.exp(sums / count), rel=1e-5)


def test_each_side_is_as_wide_as_its_own_longest_text(folder):
    """A few tokens are written of many that were read."""
    data = opened(folder, "texts")
    rows = TextToText(prompt="one and two and three and four and five {text}", target_len=8).rows(data, BEHIND, "train", seed=0)
    batch = rows.batch(np.arange(14), Share(parts=2, mine=(0, 1)))
    assert batch["decoder_tokens"].shape[1] == 16 < batch["tokens"].shape[1] and len(batch["tokens"]) == 14
    assert type(rows.for_evaluation()) is type(rows) and rows.table.cut.any()
    longest = rows.table.lengths("decoder_").max()
    assert longest == 8 and batch["decoder_loss_weights"].sum() == rows.table.lengths("decoder_").sum()


def test_long_texts_lose_their_end():
    found, cut = fitted(lambda text: list(f"<{text}>"), "a boat that went", 8)
    assert cut and "".join(found).startswith("<a boa") and found[-1] == ">" and len(found) <= 8
    assert fitted(lambda text: list(text), "boat", 4) == (list("boat"), False)
    with pytest.raises(ValueError, match="data.seq_len must leave 10 tokens for the prompt itself: it leaves 4; raise it"):
        fitted(lambda text: list("0123456789" + text), "boat", 4)


@pytest.mark.parametrize(("model", "config"), [(Transformer(ALONE), ALONE), (EncoderDecoder(BEHIND), BEHIND)])
def test_writes_texts(folder, model, config):
    data, task = opened(folder, "texts"), TextToText(target_len=6)
    rows = task.rows(data, config, "validation", seed=None)
    written = task.write(model, parameters(config), rows, data, examples=4)
    records = list(data.records("validation"))[:4]
    assert written.prompts == [record["text"] for record in records]
    assert written.references == [record["targets"] for record in records] and len(written.texts) == 4
    assert set(written.scores().values()) <= {"rouge_l", "bleu"} and written.show().startswith(records[0]["text"])


def test_rouge_is_the_longest_common_subsequence():
    """Worked by hand: 'police kill the gunman' and 'police killed the gunman' share 3 of 4 words (Lin 2004, section 3)."""
    assert rouge_l("police kill the gunman", ["police killed the gunman"]) == pytest.approx(75)
    assert rouge_l("the gunman kill police", ["police killed the gunman"]) == pytest.approx(50)
    assert rouge_l("a b c", ["x y", "A, b!"]) == pytest.approx(200 * 2 / 5)
    assert rouge_l("", ["a"]) == 0 and rouge_l("月光", ["月亮"]) == pytest.approx(50)
    assert rouge_l("a a a", ["a b a"]) == pytest.approx(200 * 2 / 6)


def test_bleu_is_that_of_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    texts = ["a boat went to the sea with fish", "some bread in it and a fish", "what is it that went"]
    references = [
        ["the boat went to sea with fish", "a boat went to the sea"],
        ["bread in it and a fish", "some fish"],
        ["what is it", "it went"],
    ]
    found = Written(texts, texts, references).scores()
    assert found.values()["bleu"] == pytest.approx(sacrebleu.corpus_bleu(texts, list(zip(*references, strict=True))).score)
    some = np.array([0, 1, 1])
    drawn = sacrebleu.corpus_bleu([texts[i] for i in some], list(zip(*[references[i] for i in some], strict=True)))
    assert bleu(texts, references)(some) == pytest.approx(drawn.score)


def test_refusals(folder):
    data = opened(folder, "texts")
    with pytest.raises(ValueError, match=r"objective.prompt must have \{text\} where the text goes: got 'translate'"):
        TextToText(prompt="translate")
    with pytest.raises(ValueError, match="has no feature 'summary'.*choose with objective.target_feature"):
        TextToText(target_feature="summary").rows(data, ALONE, "train", seed=0)
    with pytest.raises(ValueError, match="target_len must leave room for the text in data.seq_len=160: got 160"):
        TextToText(target_len=160).check(ALONE, data.config, LossConfig())
