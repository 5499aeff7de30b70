"""What is saved comes back: every bit, on any mesh, while training goes on."""

import threading

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from jaxllm.checkpoint import CheckpointConfig, CheckpointError, Store
from tests.checkpoint.states import DTYPES, State, abstract, assert_same, random_bits, train_state


def put(state, sizes, axis_type=AxisType.Auto):
    """The state on a mesh: matrices split over both axes, the rest copied."""
    mesh = jax.make_mesh(sizes, ("data", "model"), axis_types=(axis_type,) * 2)

    def place(leaf):
        return jax.device_put(leaf, NamedSharding(mesh, P("data", "model") if leaf.shape == (64, 16) else P()))

    return jax.tree.map(place, state)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "checkpoints")
    yield store
    store.close()


def test_every_type_bit_for_bit(store):
    state = {dtype: {"many": random_bits(dtype, (5, 6, 7)), "one": random_bits(dtype, ())} for dtype in DTYPES}
    meta = {"examples": 123456789012, "nested": {"list": [1, 2.5, None, "é"]}, "fraction": 0.1}
    store.save(3, state, meta)
    store.wait()
    step, found, found_meta = store.restore(abstract(state))
    assert_same(found, state)
    assert step == 3 and found_meta == meta


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_from_mesh_to_mesh(store, axis_type):
    """8x1, then 2x4, then one device, then 1x8: each restores what the one before has saved."""
    state = train_state(1)
    here = put(state, (8, 1), axis_type)
    for step, there in enumerate(((2, 4), None, (1, 8))):
        store.save(step, here, {})
        target = put(state, there, axis_type) if there else jax.device_put(state, jax.devices()[5])
        here = store.restore(abstract(target)).state
        assert_same(here, state)
        for one, other in zip(jax.tree.leaves(here), jax.tree.leaves(target), strict=True):
            assert one.sharding == other.sharding
    assert store.steps() == [1, 2]


def test_without_sharding_to_the_first_device(store):
    state = put(train_state(1), (2, 4))
    store.save(1, state, {})
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    found = store.restore(shapes).state
    assert_same(found, state)
    assert found.params["table"].sharding == SingleDeviceSharding(jax.devices()[0])


@pytest.mark.parametrize("sizes", [(1, 1), (8, 1), (2, 4)])
def test_training_goes_on_while_saving(store, sizes):
    """The saved arrays are donated to the next steps at once; what arrives on disk is still the saved step."""
    state = put({"big": jnp.zeros((4096, 512)), "count": jnp.int32(0)}, sizes)
    train_step = jax.jit(lambda s: jax.tree.map(lambda leaf: leaf + 1, s), donate_argnums=0)
    for step in (0, 4, 8):
        store.save(step, state, {})
        for _ in range(4):
            state = train_step(state)
        found = store.restore(abstract(state), step).state
        assert int(found["count"]) == step
        assert bool((found["big"] == step).all())


def test_save_returns_before_the_disk_is_done(store, monkeypatch):
    disk = threading.Event()
    finished = store._checkpointer.wait_until_finished
    monkeypatch.setattr(store._checkpointer, "wait_until_finished", lambda: (disk.wait(30), finished()))
    monkeypatch.setattr(store._checkpointer, "save", lambda *args, **kwargs: None)
    store.save(1, train_state(), {})
    assert store._thread.is_alive()
    disk.set()
    store.wait()
    assert store._thread is None


def test_synchronous(tmp_path):
    store = Store(tmp_path, CheckpointConfig(asynchronous=False))
    store.save(1, train_state(), {})
    assert store.steps() == [1] and store._thread is None
    store.close()


def test_params_alone(store):
    """Parameters come back though the optimizer's arrays are gone from the disk."""
    state = train_state(1)
    store.save(1, state, {"examples": 5})
    store.wait()
    blank = bytes(state.opt_state[1]["mu"]["table"].nbytes)
    wanted = bytes(memoryview(jax.device_get(state.opt_state[1]["mu"]["table"])).cast("B"))
    hits = 0
    for path in (store._place.folder / "1").rglob("*"):
        if path.is_file() and wanted in path.read_bytes():
            path.write_bytes(path.read_bytes().replace(wanted, blank))
            hits += 1
    assert hits == 1
    found = store.restore_params(abstract(state.params))
    assert_same(found.state, state.params)
    assert found.step == 1 and found.meta == {"examples": 5}
    with pytest.raises(CheckpointError, match="opt_state/1/mu/table"):
        store.restore(abstract(state))


def test_structure_is_independent_of_classes(store):
    state = train_state(1)
    store.save(1, state, {})
    as_dicts = {"step": state.step, "params": state.params, "opt_state": {"1": state.opt_state[1]}}
    assert_same(store.restore(abstract(as_dicts)).state, as_dicts)


def test_readable_by_plain_orbax(store):
    import orbax.checkpoint as ocp

    state = {"params": {"kernel": jnp.arange(6.0)}}
    store.save(1, state, {})
    store.wait()
    item = {"params/kernel": jax.ShapeDtypeStruct((6,), jnp.float32, sharding=state["params"]["kernel"].sharding)}
    found = ocp.StandardCheckpointer().restore(store._place.folder / "1" / "state", item)
    assert bool((found["params/kernel"] == state["params"]["kernel"]).all())


def test_newest_or_the_one_asked_for(store):
    for step in (5, 10):
        store.save(step, train_state(step), {"step": step})
    assert_same(store.restore(abstract(train_state())).state, train_state(10))
    assert store.restore(abstract(train_state()), step=5).meta == {"step": 5}


def test_save_again_replaces(store):
    store.save(5, train_state(1), {"attempt": 1})
    store.save(5, train_state(2), {"attempt": 2})
    found = store.restore(abstract(train_state()))
    assert_same(found.state, train_state(2))
    assert found.meta == {"attempt": 2} and store.steps() == [5]
    assert [path.name for path in store._place.folder.iterdir()] == ["5"]


def test_none_there(store):
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*checkpoints: train first"):
        store.restore(abstract(train_state()))
    assert store.steps() == [] and store.best_step() is None
    assert not store._place.folder.exists()
    store.save(5, train_state(), {})
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7 in .*: there are 5"):
        store.restore(abstract(train_state()), step=7)


def replace_params(state: State, **changes) -> State:
    return state._replace(params={**state.params, **changes})


MISFITS = {
    r"params/table: expected float32\[65, 16\], found float32\[64, 16\]": replace_params(
        train_state(), table=jnp.zeros((65, 16))
    ),
    r"params/table: expected bfloat16\[64, 16\], found float32\[64, 16\]": replace_params(
        train_state(), table=jnp.zeros((64, 16), jnp.bfloat16)
    ),
    r"params/head: expected float32\[3\], found no such array": replace_params(train_state(), head=jnp.zeros(3)),
    r"opt_state/1/count: expected no such array, found int32\[\].* and 3 more": train_state()._replace(opt_state=()),
}


@pytest.mark.parametrize("message", MISFITS)
def test_another_model_is_not_damage(store, message):
    """A misfit names leaf, expected and found, and no earlier checkpoint is tried."""
    wanted = MISFITS[message]
    for step in (1, 2):
        store.save(step, train_state(), {})
    with pytest.raises(CheckpointError, match=rf"checkpoint .*/2 does not fit this model and optimizer: {message}"):
        store.restore(abstract(wanted))
    if message.startswith("params"):
        with pytest.raises(CheckpointError, match=message):
            store.restore_params(abstract(wanted.params))


@pytest.mark.parametrize(
    "leaf, message",
    [
        (3.0, "params must be a jax.Array to be saved: got float"),
        (jax.random.key(0), "params is a random key: save jax.random.key_data"),
        (jnp.zeros((0, 2)), r"params cannot be saved, leave it out: it is float32\[0, 2\]"),
        (jnp.zeros(2, jnp.complex64), r"params cannot be saved, leave it out: it is complex64\[2\]"),
    ],
)
def test_unfit_leaves(store, leaf, message):
    with pytest.raises(CheckpointError, match=message):
        store.save(1, {"params": leaf}, {})
    assert store.steps() == []


def test_unfit_meta(store):
    with pytest.raises(CheckpointError, match="meta must hold JSON values: .*set"):
        store.save(1, train_state(), {"seen": {1, 2}})
    with pytest.raises(CheckpointError, match="two leaves of the state have the same path"):
        store.save(1, {"a/b": jnp.zeros(1), "a": {"b": jnp.ones(1)}}, {})
