"""What holds for every objective."""

import dataclasses
import itertools
import pickle
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.data import Rows, eval_batches, train_batches
from jaxllm.models import VisionConfig, init_params, make_model
from jaxllm.sharding import MeshConfig, batch_sharding, make_mesh, use_mesh
from jaxllm.training import LossConfig
from tests.training.objectives.battery import ROWS, Row

every = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


@pytest.fixture
def opened(open_set: Callable, open_pictures: Callable) -> Callable:
    def opened(row: Row, seed: int = 0):
        return open_pictures(seed=seed) if isinstance(row.model, VisionConfig) else open_set(seed=seed, **row.data)

    return opened


def train_rows(row: Row, opened: Callable, seed: int = 0) -> Rows:
    return row.objective.rows(opened(row, seed), row.model, "train", seed=seed)


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


@every
def test_examples_have_the_fields_that_were_announced(row, opened):
    config = opened(row).config
    row.objective.check(row.model, config, LossConfig())
    batch = train_rows(row, opened).rows(np.arange(5))
    fields = row.objective.fields(config)
    assert {name: (array.shape[1:], array.dtype) for name, array in batch.items()} == {
        name: (field.shape, np.dtype(field.dtype)) for name, field in fields.items()
    }
    assert batch["loss_weights"].sum() > 0 and (batch["loss_weights"] >= 0).all()


@every
def test_an_example_depends_on_its_position_alone(row, opened):
    """However the stream is cut into batches and processes, wherever it begins, and after a copy to another process."""
    source = train_rows(row, opened)
    count = 2 * source.rows_per_epoch // 4 + 2  # over two borders of epochs
    whole = list(itertools.islice(train_batches(source, batch_size=4), count))
    one_by_one = [source.rows(np.array([p])) for p in range(4 * count)]
    for number, batch in enumerate(whole):
        assert all(same({n: a[[k]] for n, a in batch.items()}, one_by_one[4 * number + k]) for k in range(4))
    copy = pickle.loads(pickle.dumps(source))
    assert same(copy.rows(np.arange(4, 8)), whole[1]) and copy.fingerprint == source.fingerprint
    later = train_batches(source, batch_size=4, start=5, rows=[2, 3])
    assert same(next(later), {n: np.concatenate([one_by_one[p][n] for p in (7, 8)]) for n in whole[0]})


@pytest.mark.parametrize("name", ["masked", pytest.param("pairs", marks=pytest.mark.slow), "mixed images"])
def test_workers_give_the_same_stream(name, opened):
    source = train_rows(ROWS[name], opened)
    batches = list(itertools.islice(train_batches(source, batch_size=4), 3))
    with_workers = list(itertools.islice(train_batches(source, batch_size=4, num_workers=2), 3))
    assert all(same(*pair) for pair in zip(batches, with_workers, strict=True))


@every
def test_seeds_and_epochs_differ(row, opened):
    source, other = train_rows(row, opened), train_rows(row, opened, seed=1)
    R = source.rows_per_epoch
    first, second = (source.rows(np.arange(e * R, (e + 1) * R)) for e in (0, 1))
    assert not same(first, second) and not same(first, other.rows(np.arange(R))) and source.fingerprint != other.fingerprint


@every
def test_evaluation_is_always_the_same_and_looks_at_every_row(row, opened):
    source = row.objective.rows(opened(row), row.model, "validation", seed=None)
    batches = list(eval_batches(source, batch_size=4))
    assert all(same(*pair) for pair in zip(batches, eval_batches(source, batch_size=4), strict=True))
    rows = source.rows(np.arange(source.rows_per_epoch))
    assert sum(batch["loss_weights"].sum() for batch in batches) == rows["loss_weights"].sum()
    assert len({array.shape for batch in batches for array in [next(iter(batch.values()))]}) == 1


@every
def test_rows_say_where_they_come_from(row, opened):
    assert all(isinstance(name, str) for name in train_rows(row, opened).describe(3))


FEW = ("causal", "spans", "images")


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=name, marks=() if name in FEW else pytest.mark.slow) for name, row in ROWS.items()]
)
def test_loss_on_a_mesh_is_that_on_one_device(row, opened):
    """And its gradient, which reaches every parameter; rows of padding change neither."""
    model = make_model(row.model)
    params = init_params(model, jax.random.key(0))
    loss = row.objective.make_loss(model, LossConfig(label_smoothing=0.1))
    batch = train_rows(row, opened).rows(np.arange(4))
    padding = {n: np.concatenate([array, np.zeros_like(array)]) for n, array in batch.items()}

    def total(params, batch):
        sums = loss(params, batch, None)
        return sums.total, sums

    grad = jax.jit(jax.grad(total, has_aux=True))
    want, sums = grad(params, batch)
    assert float(sums.weight) == pytest.approx(batch["loss_weights"].sum())
    assert 0 <= float(sums.correct) <= float(sums.weight)
    assert abs(float(sums.cross_entropy / sums.weight) - np.log(row.classes)) < 0.7
    for path, leaf in jax.tree_util.tree_leaves_with_path(want):
        assert jnp.abs(leaf).max() > 0, jax.tree_util.keystr(path)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2, explicit=True), 8)
    with use_mesh(mesh):
        got, on_mesh = grad(params, jax.device_put(padding, batch_sharding(mesh)))
    for a, b in zip(sums, on_mesh, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), want, got)


@pytest.mark.parametrize("name", ["prefix", "masked", "masked words", "masked spans", "spans", "denoising"])
def test_the_same_row_is_changed_otherwise_at_every_position(name, opened):
    """Also where it comes to stand at the same place of another epoch."""
    source = train_rows(ROWS[name], opened)

    class OneRow:
        seed, rows_per_epoch, fingerprint = 0, 4, "one"

        def rows(self, positions):
            return source.base.rows(np.zeros_like(positions))  # type: ignore[attr-defined]

        def for_evaluation(self):
            return self

        def describe(self, position):
            return []

    batch = dataclasses.replace(source, base=OneRow()).rows(np.arange(16))  # type: ignore[type-var]
    versions = {b"".join(array[k].tobytes() for array in batch.values()) for k in range(16)}
    assert len(versions) > 8
