import itertools
import pickle
from typing import Any

import numpy as np
import pytest

from jaxllm.data import RowSource, TokenizerConfig, eval_batches, train_batches

TEXTS = [f"document {i} " + "abc xyz " * (i % 7) for i in range(60)]


def take(source: RowSource, count: int, **options: Any) -> list[dict[str, np.ndarray]]:
    batches = train_batches(source, **options)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def same(first: list, second: list) -> bool:
    pairs = zip(first, second, strict=True)
    return all((a[name] == b[name]).all() for a, b in pairs for name in a)


@pytest.mark.parametrize("packing", ["concat", "fit"])
def test_batch_shapes(open_texts, packing: str):
    data = open_texts(TEXTS, packing=packing)
    (batch,) = take(data.train, 1, batch_size=6)
    assert {name: (str(value.dtype), value.shape) for name, value in batch.items()} == {
        name: ("float32" if name == "loss_weights" else "int32", (6, 16))
        for name in ("tokens", "targets", "positions", "segment_ids", "loss_weights")
    }
    counted = batch["loss_weights"][:, :-1] == 1
    assert (batch["targets"][:, :-1] == batch["tokens"][:, 1:])[counted].all()


@pytest.mark.parametrize("packing", ["concat", "fit"])
def test_same_stream_for_any_number_of_processes(open_texts, packing: str):
    source = open_texts(TEXTS, packing=packing).train
    count = 2 * source.rows_per_epoch // 8 + 2  # over two borders of epochs
    whole = take(source, count, batch_size=8)
    for processes in (2, 4):
        each = 8 // processes
        parts = [take(source, count, batch_size=8, rows=range(k * each, (k + 1) * each)) for k in range(processes)]
        joined = [{n: np.concatenate([p[n] for p in batch]) for n in batch[0]} for batch in zip(*parts, strict=True)]
        assert same(whole, joined)


def test_rows_that_are_apart(open_texts):
    """As where the devices of a process are not neighbours in the mesh."""
    source = open_texts(TEXTS).train
    for whole, part in zip(take(source, 9, batch_size=8), take(source, 9, batch_size=8, rows=[0, 1, 5]), strict=True):
        assert same([{name: value[[0, 1, 5]] for name, value in whole.items()}], [part])


def test_same_stream_for_any_number_of_workers(open_texts):
    source = open_texts(TEXTS).train
    whole = take(source, 7, batch_size=4, start=5, prefetch=0)
    assert same(whole, take(source, 7, batch_size=4, start=5, prefetch=3))
    assert same(whole, take(source, 7, batch_size=4, start=5, num_workers=2))


@pytest.mark.parametrize("start", [8, 24, 13])
def test_going_on_from_the_middle(open_texts, start: int):
    source = open_texts(TEXTS).train
    rows = {n: np.concatenate([b[n] for b in take(source, 10, batch_size=8)]) for n in ("tokens", "positions")}
    later = {n: np.concatenate([b[n] for b in take(source, 4, batch_size=8, start=start)]) for n in rows}
    assert all((later[n] == rows[n][start : start + 32]).all() for n in rows)


def test_random_access_is_the_stream(open_texts):
    source = open_texts(TEXTS).train
    (batch,) = take(source, 1, batch_size=8, start=40)
    for row in range(8):
        assert (source.rows(np.array([40 + row]))["tokens"][0] == batch["tokens"][row]).all()
    assert (pickle.loads(pickle.dumps(source)).rows(np.arange(40, 48))["tokens"] == batch["tokens"]).all()
    assert len(pickle.dumps(source)) < 2000  # worker processes get names, not tokens


def test_epochs_and_seeds_differ(open_texts):
    data = open_texts(TEXTS, seed=1)
    R = data.train.rows_per_epoch
    first, second = (data.train.rows(np.arange(e * R, (e + 1) * R))["tokens"] for e in (0, 1))
    other = open_texts(TEXTS, seed=2).train.rows(np.arange(R))["tokens"]
    assert (first != second).any() and (first != other).any()
    whole_rows = {row.tobytes() for row in first} & {row.tobytes() for row in second}
    assert len(whole_rows) < R / 2  # the cuts have moved


@pytest.mark.parametrize("packing", ["concat", "fit"])
@pytest.mark.parametrize("across", [False, True])
def test_evaluation_weights_add_up(open_texts, packing: str, across: bool):
    data = open_texts(TEXTS, validation=TEXTS[:9], packing=packing, cross_document_attention=across)
    source = data.rows("validation")
    batches = list(eval_batches(source, batch_size=4))
    assert all(batch["tokens"].shape == (4, 16) for batch in batches)
    weight = sum(batch["loss_weights"].sum() for batch in batches)
    assert weight == source.table.num_tokens - source.table.num_documents
    parts = [list(eval_batches(source, batch_size=4, rows=rows)) for rows in (range(2), range(2, 4))]
    assert len(parts[0]) == len(parts[1]) == len(batches)
    assert same(batches, [{n: np.concatenate([a[n], b[n]]) for n in a} for a, b in zip(*parts, strict=True)])


def test_evaluation_of_the_training_split(open_texts):
    source = open_texts(TEXTS).train
    weight = sum(batch["loss_weights"].sum() for batch in eval_batches(source, batch_size=4))
    assert weight == source.table.num_tokens - source.table.num_documents


def test_cross_document_attention(open_texts):
    apart = open_texts(TEXTS).train.rows(np.arange(20))
    across = open_texts(TEXTS, cross_document_attention=True).train.rows(np.arange(20))
    assert apart["segment_ids"].max() > 1 and (across["segment_ids"] == 1).all()
    assert (across["positions"] == np.arange(16)).all() and (apart["positions"] != across["positions"]).any()
    for name in ("tokens", "targets", "loss_weights"):
        assert (apart[name] == across[name]).all()


def test_rows_name_their_documents(open_texts):
    data = open_texts(["aaaaaaa", "bbb", "c" * 40], packing="fit")
    named = [data.train.describe(p) for p in range(data.train.rows_per_epoch)]
    assert {name for names in named for name in names} == {
        "train:0", "train:1", "train:2 tokens 0-15", "train:2 tokens 16-31", "train:2 tokens 32-39",
    }  # fmt: skip
    for position, names in enumerate(named):
        tokens = set(data.train.rows(np.array([position]))["tokens"][0]) - {0, 256}
        assert {chr(t) for t in tokens} == {{"train:0": "a", "train:1": "b", "train:2": "c"}[n.split()[0]] for n in names}


def test_rows_name_their_tokens(open_texts):
    source = open_texts(["one", "", "".join(map(chr, range(32, 127))) * 2], tokenizer=TokenizerConfig(kind="characters")).train
    texts = {"train:0": "one", "train:2": "".join(map(chr, range(32, 127))) * 2}
    for position in range(2 * source.rows_per_epoch):
        read = ""
        for described in source.describe(position):
            name, _, tokens = described.partition(" tokens ")
            first, last = map(int, tokens.split("-")) if tokens else (0, len(texts[name]) - 1)
            read += texts[name][first : last + 1]
        there = "".join(chr(32 + id) for id in source.rows(np.array([position]))["tokens"][0])
        assert read == there


def test_errors(open_texts):
    data = open_texts(TEXTS)
    with pytest.raises(ValueError, match=r"rows must be numbers from 0 to 7, ascending: got \[0, 8\]"):
        train_batches(data.train, batch_size=8, rows=[0, 8])
    with pytest.raises(ValueError, match=r"ascending: got \[3, 2\]"):
        eval_batches(data.train, batch_size=8, rows=[3, 2])
    with pytest.raises(ValueError, match="examples consumed, from 0: got -1"):
        train_batches(data.train, batch_size=8, start=-1)
    with pytest.raises(ValueError, match="needs a source with a seed"):
        train_batches(data.rows("validation"), batch_size=8)
    with pytest.raises(IndexError, match="rows 0 to 0: got 1"):
        data.rows("validation").rows(np.array([1]))
    with pytest.raises(ValueError, match="'train' must have at least 16 tokens for rows of 16: it has 6; lower seq_len"):
        open_texts(["short"]).train  # noqa: B018


def test_each_epoch_has_every_row_in_an_order_of_its_own(open_texts):
    source = open_texts(TEXTS, packing="fit").train
    R = source.rows_per_epoch
    first, second = ([row.tobytes() for row in source.rows(np.arange(e * R, (e + 1) * R))["tokens"]] for e in (0, 1))
    assert sorted(first) == sorted(second) and first != second
