import dataclasses
import pickle

import numpy as np
import pytest

from jaxllm.data import DataConfig, TokenizerConfig, open_data
from jaxllm.data.packing import best_fit
from jaxllm.data.pairs import PairSource
from jaxllm.data.tfds_builder import write_set

RANDOM = np.random.default_rng(0)
LENGTHS = RANDOM.integers(0, 20, (200, 2)).tolist()


@pytest.fixture
def open_pairs(tmp_path, monkeypatch):
    def opened(lengths, source_len=32, target_len=40, split="train", seed=0, first=None) -> PairSource:
        texts = [(f"p{i}", "a" * here, "b" * there) for i, (here, there) in enumerate(lengths)]
        features = {"id": None, "x": None, "y": None}
        write_set("pairs", {"train": texts, "validation": texts}, tmp_path, description="", features=features, overwrite=True)
        config = DataConfig(
            dataset="pairs",
            data_dir=str(tmp_path),
            seq_len=8,
            text_feature="x",
            target_feature="y",
            tokenizer=TokenizerConfig(),
        )
        return open_data(config, seed=0).pairs(source_len, target_len, split, first=first, seed=seed)

    return opened


def lengths_in(batch, prefix=""):
    """Of the texts of each row."""
    segments = batch[f"{prefix}segment_ids"]
    return [[int((row == k).sum()) for k in range(1, row.max() + 1)] for row in segments]


@pytest.mark.parametrize("seed", [None, 0])
def test_every_pair_stands_whole_in_one_row(open_pairs, seed):
    source = open_pairs(LENGTHS, seed=seed)
    batch = source.rows(np.arange(source.rows_per_epoch))
    here, there = lengths_in(batch), lengths_in(batch, "target_")
    pairs = [pair for row in zip(here, there, strict=True) for pair in zip(*row, strict=True)]
    assert sorted(pairs) == sorted((x + 1, y + 1) for x, y in LENGTHS)  # each with its end mark
    names = [name for p in range(source.rows_per_epoch) for name in source.describe(p)]
    assert sorted(names) == sorted(f"p{i}" for i in range(200))
    assert [tuple(x - 1 for x in pair) for pair in pairs] == [tuple(LENGTHS[int(name[1:])]) for name in names]
    assert batch["tokens"].shape[1] == 32 and batch["target_tokens"].shape[1] == 40
    for prefix, letter in (("", ord("a")), ("target_", ord("b"))):
        tokens, positions = batch[f"{prefix}tokens"], batch[f"{prefix}positions"]
        assert set(np.unique(tokens[batch[f"{prefix}segment_ids"] > 0])) == {letter, 256}
        assert not tokens[batch[f"{prefix}segment_ids"] == 0].any() and not positions[batch[f"{prefix}segment_ids"] == 0].any()


def test_rows_are_well_filled(open_pairs):
    source = open_pairs(LENGTHS, 64, 64)
    batch = source.rows(np.arange(source.rows_per_epoch))
    assert (batch["segment_ids"] > 0).mean() > 0.9 and (batch["target_segment_ids"] > 0).mean() > 0.9


def test_pairs_that_are_too_long(open_pairs, capsys):
    lengths = [(3, 4), (40, 2), (2, 60), (1, 1)]
    source = open_pairs(lengths)
    assert sum(lengths_in(source.rows(np.arange(source.rows_per_epoch))), []) == [4, 2]
    assert "2 of the 4 pairs of train are longer than 32 and 40 tokens and are left out of training" in capsys.readouterr().err
    whole = source.for_evaluation()
    batch = whole.rows(np.arange(whole.rows_per_epoch))
    assert sorted(sum(lengths_in(batch), [])) == [2, 3, 4, 32] and sorted(sum(lengths_in(batch, "target_"), [])) == [
        2,
        3,
        5,
        40,
    ]
    with pytest.raises(ValueError, match="must have a pair that fits into 32 and 40 tokens: it has none; widen"):
        open_pairs(lengths[1:3])


def test_a_mark_before_each_source(open_pairs):
    plain, marked = open_pairs(LENGTHS), open_pairs(LENGTHS, first=7)
    batch = marked.rows(np.arange(marked.rows_per_epoch))
    begins = (batch["positions"] == 0) & (batch["segment_ids"] > 0)
    assert (batch["tokens"][begins] == 7).all() and begins.sum() == 200 and (batch["target_tokens"] != 7).all()
    assert sorted(sum(lengths_in(batch), [])) == sorted(x + 2 for x, _ in LENGTHS)
    assert plain.fingerprint != marked.fingerprint


def test_orders(open_pairs):
    source = open_pairs(LENGTHS)
    R = source.rows_per_epoch
    first, second = ([row.tobytes() for row in source.rows(np.arange(e * R, (e + 1) * R))["tokens"]] for e in (0, 1))
    assert sorted(first) == sorted(second) and first != second
    assert first != [row.tobytes() for row in dataclasses.replace(source, seed=1).rows(np.arange(R))["tokens"]]
    whole = source.for_evaluation()
    assert "p0" in whole.describe(0)  # the first pairs in the first rows, so that a part of the split is a fair one
    copy = pickle.loads(pickle.dumps(source))
    assert (copy.rows(np.arange(9))["tokens"] == source.rows(np.arange(9))["tokens"]).all() and len(pickle.dumps(source)) < 2000
    with pytest.raises(IndexError, match="a split in its own order has rows"):
        whole.rows(np.array([whole.rows_per_epoch]))


def test_two_sided_best_fit_never_overfills():
    for trial in range(30):
        random = np.random.default_rng(trial)
        lengths = random.integers(1, 30, (random.integers(1, 200), 2))
        lengths = lengths[np.lexsort((-lengths[:, 1], -lengths[:, 0], -lengths.max(axis=1)))]
        row = best_fit(lengths, (30, 40))
        used = np.zeros((row.max() + 1, 2), int)
        np.add.at(used, row, lengths)
        assert (used <= [30, 40]).all() and (used > 0).all()
