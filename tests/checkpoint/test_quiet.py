"""A damaged checkpoint is one line for the user, not pages of Orbax's tracebacks; other errors still show."""

import logging
import subprocess
import sys
import textwrap
import types

import jax.numpy as jnp
import pytest

from jaxllm.checkpoint import CheckpointError, Store
from jaxllm.checkpoint.quiet import LOGS, quiet_orbax
from tests.checkpoint.states import abstract

DAMAGED = """
    import sys

    import jax.numpy as jnp

    from jaxllm.checkpoint import Store

    state = {str(i): jnp.arange(100.0) for i in range(10)}
    store = Store(sys.argv[1])
    for step in (1, 2):
        store.save(step, state, {})
    store.wait()
    data = sorted((store._place.folder / "2" / "state").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    for path in (*data[-2:], store._place.folder / "2" / "state" / "manifest.ocdbt"):
        good = path.read_bytes()
        path.write_bytes(good[:50])
        store.restore(state, on_damaged=lambda step, message: print(step))
        path.write_bytes(good)
    store.close()
"""


def test_nothing_on_the_terminal_but_ours(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DAMAGED), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["2", "2", "2"]


def test_other_messages_pass(monkeypatch, caplog):
    seen = []
    monkeypatch.setattr("sys.unraisablehook", seen.append)
    before = sys.unraisablehook
    other = types.SimpleNamespace(exc_value=RuntimeError("something else"), object=None)
    late = types.SimpleNamespace(exc_value=RuntimeError("Event loop is closed"), object=None)
    with quiet_orbax():
        with quiet_orbax():
            pass
        sys.unraisablehook(other)  # type: ignore[arg-type]
        sys.unraisablehook(late)  # type: ignore[arg-type]
        logging.getLogger("absl").warning("from elsewhere")
        logging.getLogger("absl").warning("about %s", "orbax")
    assert seen == [other]
    assert [record.getMessage() for record in caplog.records] == ["from elsewhere"]
    assert sys.unraisablehook is before
    logging.getLogger("absl").warning("about %s", "orbax")
    assert len(caplog.records) == 2


def test_what_stays(tmp_path, monkeypatch):
    """Nothing after a save and a restore; after an error the hook alone, once, for what comes late."""

    def earlier(unraisable):
        raise AssertionError(unraisable)

    monkeypatch.setattr("sys.unraisablehook", earlier)
    filters = [list(logging.getLogger(name).filters) for name in LOGS]
    state = abstract({"x": jnp.ones(3)})
    store = Store(tmp_path)
    store.save(1, {"x": jnp.ones(3)}, {})
    store.wait()
    store.restore(state)
    assert sys.unraisablehook is earlier
    (tmp_path / "1" / "state" / "manifest.ocdbt").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="no good checkpoint"):
            store.restore(state)
        assert vars(sys.unraisablehook)["earlier"] is earlier
    store.close()
    assert [logging.getLogger(name).filters for name in LOGS] == filters
