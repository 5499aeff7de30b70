"""Examples as rows: each once an epoch, the same stream for any number of processes, few shapes."""

import itertools
import pickle

import numpy as np
import pytest

from jaxllm.data import eval_batches, train_batches
from jaxllm.data.example_rows import few_sizes, pack
from jaxllm.data.rows import Share
from jaxllm.data.tokenizer import ByteTokenizer
from jaxllm.finetune.tasks import TextClassification
from jaxllm.finetune.tasks.encode import encode_text
from tests.finetune.tasks.battery import ENCODER


def rows_of(data, seed=0, split="train"):
    return TextClassification().rows(data, ENCODER, split, seed=seed)


def test_few_sizes():
    assert [few_sizes(n) for n in (0, 1, 7, 8, 9, 11, 17, 30, 33)] == [1, 1, 7, 8, 10, 12, 20, 32, 40]
    assert few_sizes(9, 4) == 12 and few_sizes(130, 16) == 160
    sizes = {few_sizes(n) for n in range(1, 2000)}
    assert len(sizes) < 45 and all(few_sizes(n) <= max(8, 1.26 * n) and few_sizes(n) >= n for n in range(1, 2000))


def test_packing_keeps_items_whole_and_apart():
    lengths = np.random.default_rng(0).integers(1, 30, 50)
    rows, begins, segments = pack(lengths, 32)
    used = np.zeros((rows.max() + 1, 32), int)
    for row, begin, length in zip(rows, begins, lengths, strict=True):
        used[row, begin : begin + length] += 1
        assert begin + length <= 32
    assert used.max() == 1 and used.sum() == lengths.sum()
    assert rows.max() + 1 <= 1.15 * lengths.sum() / 32 + 1
    for row in range(rows.max() + 1):
        assert sorted(segments[rows == row]) == list(range(1, (rows == row).sum() + 1))


def texts_in(batch, *names):
    """What stands in each segment, as sorted tuples."""
    found = []
    for row in range(len(batch["tokens"])):
        for segment in range(1, batch["segment_ids"][row].max() + 1):
            there = batch["segment_ids"][row] == segment
            found.append(tuple(tuple(batch[name][row][there].tolist()) for name in names))
    return sorted(found)


@pytest.mark.parametrize("packing", [True, False])
def test_every_example_once_an_epoch(open_task, packing):
    rows = rows_of(open_task(packing=packing))
    names = ("tokens", "positions", "targets", "loss_weights")
    whole = texts_in(rows.batch(np.arange(120), Share()), *names)
    assert len(whole) == 120
    for epoch in (0, 1):
        seen = [rows.batch(np.arange(epoch * 120 + start, epoch * 120 + start + 24), Share()) for start in range(0, 120, 24)]
        assert sorted(itertools.chain(*(texts_in(batch, *names) for batch in seen))) == whole
    first, second = (texts_in(rows.batch(np.arange(epoch * 120, epoch * 120 + 24), Share()), *names) for epoch in (0, 1))
    assert first != second
    assert all(
        sum(weights) == 1 and weights[0] == 1 and positions == tuple(range(len(positions)))
        for _, positions, _, weights in whole
    )


@pytest.mark.parametrize("packing", [True, False])
def test_same_stream_for_any_number_of_processes(open_task, packing):
    rows, parts = rows_of(open_task(packing=packing)), 4

    def stream(mine):
        batches = train_batches(rows, batch_size=24, start=48, share=Share(parts, mine, 2))
        taken = list(itertools.islice(batches, 7))
        batches.close()
        return taken

    whole = stream((0, 1, 2, 3))
    for division in (((0, 1), (2, 3)), ((0,), (1,), (2,), (3,))):
        for number, parts_of in enumerate(zip(*map(stream, division), strict=True)):
            assert whole[number].keys() == parts_of[0].keys()
            for name, value in whole[number].items():
                np.testing.assert_array_equal(value, np.concatenate([part[name] for part in parts_of]))
    assert all(len(batch["tokens"]) % (parts * 2) == 0 for batch in whole)
    alone = [texts_in(rows.batch(np.arange(48 + i * 24, 72 + i * 24), Share()), "tokens") for i in range(7)]
    assert alone == [texts_in(batch, "tokens") for batch in whole]  # the division decides rows, never examples


@pytest.mark.parametrize("packing", [True, False])
def test_evaluation_covers_each_example_once(open_task, packing):
    rows = rows_of(open_task(packing=packing), split="validation")
    batches = list(eval_batches(rows, batch_size=16, share=Share(4, (0, 1, 2, 3))))
    items = np.concatenate([batch["items"][batch["items"] > 0] for batch in batches])
    assert len(batches) == 3 and sorted(items) == list(range(1, 41))
    for batch in batches:
        at_label = batch["items"] > 0
        assert (at_label == (batch["loss_weights"] > 0)).all()


def test_workers_get_the_same(open_task):
    rows = rows_of(open_task())
    again = pickle.loads(pickle.dumps(rows))
    for name, value in rows.rows(np.arange(9)).items():
        np.testing.assert_array_equal(value, again.rows(np.arange(9))[name])
    assert again.fingerprint == rows.fingerprint != rows_of(open_task(), seed=1).fingerprint


def test_the_longer_of_two_texts_loses_its_end():
    tokenizer = ByteTokenizer()
    for first, second, limit in ((10, 200, 100), (200, 10, 100), (200, 200, 100), (3, 4, 100)):
        found = encode_text(tokenizer, "a" * first, "b" * second, limit)
        kept = [int((found.token_types == kind).sum()) for kind in (0, 1)]
        ends = len(encode_text(tokenizer, "a", None, limit).ids) - 1
        assert found.cut == (first + second + 2 * ends > limit) and sum(kept) == min(first + second + 2 * ends, limit)
        assert min(kept) >= min(first + ends, second + ends, limit // 2)


def test_too_long(open_task):
    cut = rows_of(open_task(seq_len=12))
    assert 0 < cut.table.cut.sum() < 120 and cut.rows_per_epoch == 120
    assert cut.rows(np.arange(120))["segment_ids"].shape[1] == 12
    dropped = rows_of(open_task(seq_len=12, too_long="drop"))
    assert dropped.rows_per_epoch == 120 - cut.table.cut.sum()
    assert dropped.for_evaluation().rows_per_epoch == 120
    with pytest.raises(
        ValueError, match=r"at most data.seq_len=12 tokens, .* t:\d+ has more, and \d+ others; raise data.seq_len"
    ):
        rows_of(open_task(seq_len=12, too_long="refuse"))
    assert cut.describe(0)[0].startswith("t:")
