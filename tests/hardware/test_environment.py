import json
import socket
import sys

from jaxllm.hardware import environment
from jaxllm.hardware.environment import commit, versions


def test_says_what_a_reader_needs_and_not_whose_machine_it_is():
    found = environment()
    assert found["platform"] == "cpu" and found["device_count"] == 8 and found["process_count"] == 1
    assert found["cores"] >= 1 and found["memory_bytes"] > 2**28
    assert all(found["versions"][name] for name in ("python", "jax", "flax", "optax", "numpy"))
    assert socket.gethostname() not in json.dumps(found)


def test_a_package_that_is_missing_has_no_version(monkeypatch):
    monkeypatch.setattr(sys.modules[versions.__module__], "PACKAGES", ("jax", "no-such-package"))
    assert versions()["no-such-package"] is None and versions()["jax"]


def test_commit_is_a_hash_or_unknown():
    found = commit()
    assert found is None or len(found.removesuffix("+changes")) == 40
