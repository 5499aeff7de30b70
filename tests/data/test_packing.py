import numpy as np
import pytest

from jaxllm.data.packing import Concat, Fit
from jaxllm.data.shuffle import keys_of, permute, random_order

LENGTHS = [5, 1, 30, 9, 0, 17, 2, 16, 64, 3]


def ends_of(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def all_cells(layout: Concat | Fit, offset: int = 0):
    rows = np.arange(layout.num_rows)
    return layout.cells(rows, np.full_like(rows, offset))


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("layout", [Concat, Fit])
def test_segments_are_pieces_of_documents(layout: type, seed: int | None):
    ends = ends_of(LENGTHS)
    cells = all_cells(layout(ends, 16, seed))
    document = np.searchsorted(ends, cells.source, side="right") - 1
    for row in range(len(document)):
        segments = cells.segment_ids[row]
        used = segments[segments > 0]
        assert (np.diff(used) >= 0).all() and set(used) == set(range(1, used.max() + 1))
        assert not segments[len(used) :].any()  # padding is at the end
        assert not cells.positions[row][len(used) :].any() and not cells.loss_weights[row][len(used) :].any()
        for segment in range(1, used.max() + 1):
            inside = segments == segment
            assert len(set(document[row][inside])) == 1
            assert (cells.positions[row][inside] == np.arange(inside.sum())).all()
            assert (np.diff(cells.source[row][inside]) == 1).all()
    counted = cells.loss_weights == 1
    assert (cells.target[counted] == cells.source[counted] + 1).all()
    assert (np.searchsorted(ends, cells.target[counted], side="right") - 1 == document[counted]).all()


@pytest.mark.parametrize("seq_len", [1, 2, 7, 16, 64, 200])
@pytest.mark.parametrize("layout", [Concat, Fit])
def test_evaluation_counts_each_target_once(layout: type, seq_len: int):
    ends = ends_of(LENGTHS)
    cells = all_cells(layout(ends, seq_len, None))
    targets = np.sort(cells.target[cells.loss_weights == 1])
    begins = set(ends[:-1])
    assert targets.tolist() == [i for i in range(ends[-1]) if i not in begins]
    assert cells.loss_weights.sum() == sum(LENGTHS) - sum(length > 0 for length in LENGTHS)


@pytest.mark.parametrize("offset", [0, 1, 15])
def test_training_stream_leaves_less_than_a_row(offset: int):
    ends = ends_of(LENGTHS)
    layout = Concat(ends, 16, 3)
    sources = all_cells(layout, offset).source.ravel()
    assert len(set(sources)) == len(sources) == sum(LENGTHS) // 16 * 16


def test_training_order_of_documents_depends_on_the_seed():
    ends = ends_of([16] * 50)
    first, same, other = (all_cells(Concat(ends, 16, seed)).source[:, 0].tolist() for seed in (1, 1, 2))
    assert first == same != other and sorted(first) == sorted(other) == ends[:-1].tolist()


def test_moved_cuts_move_the_rows():
    ends = ends_of([1000])
    assert all_cells(Concat(ends, 16, 0), 5).source[0, 0] == 5


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_fit_keeps_documents_whole_and_uses_every_target(seed: int | None):
    lengths = np.random.default_rng(0).integers(0, 30, 500).tolist()
    ends = ends_of(lengths)
    cells = all_cells(Fit(ends, 32, seed))
    begins = set(ends[:-1])
    targets = np.sort(cells.target[cells.loss_weights == 1]).tolist()
    assert targets == [i for i in range(ends[-1]) if i not in begins]
    starts = cells.source[(cells.positions == 0) & (cells.segment_ids > 0)]
    assert set(starts) <= begins  # no piece begins inside a document
    assert len(cells.source) == naive_best_fit([max(0, length - 1) for length in lengths], 32)


def naive_best_fit(sizes: list[int], capacity: int) -> int:
    rooms: list[int] = []
    for size in sorted(filter(None, sizes), reverse=True):
        fitting = [room for room in rooms if room >= size]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else capacity) - size)
    return len(rooms)


def test_fit_packs_best_fit():
    # Places are length - 1: 10, 6, 6, 4 into rows of 10 and 6 + 4, and 6 alone.
    layout = Fit(ends_of([11, 7, 7, 5]), 10, None)
    assert sorted(all_cells(layout).loss_weights.sum(axis=1).tolist()) == [6, 10, 10]


def test_fit_cuts_long_documents():
    cells = all_cells(Fit(ends_of([26]), 10, None))
    assert cells.loss_weights.sum(axis=1).tolist() == [10, 10, 5]
    assert np.sort(cells.target[cells.loss_weights == 1]).tolist() == list(range(1, 26))


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17, 1000, 4097])
def test_permutation(size: int):
    index = np.arange(size)
    keys = keys_of(7, np.array([0, 1]))
    first, second = (permute(index, size, np.full(size, key)) for key in keys)
    assert np.sort(first).tolist() == np.sort(second).tolist() == index.tolist()
    if size >= 16:
        assert (first != second).any() and (first != index).any()
        assert abs(np.corrcoef(index, first)[0, 1]) < 3 / np.sqrt(size)


def test_random_orders_stay_what_they_are():
    """A resumed run needs them: when these numbers change, every stored run loses its place."""
    assert random_order(1, 8).tolist() == [6, 7, 0, 5, 1, 3, 2, 4]
    assert permute(np.arange(8), 8, np.full(8, keys_of(1, np.array([2]))[0])).tolist() == [7, 2, 1, 0, 6, 3, 4, 5]
