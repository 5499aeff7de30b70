"""A server that cannot be reached is told of in seconds."""

import importlib.util
import re
import socket
import threading
import time
import urllib.request

import pytest

from jaxllm.cli import run
from jaxllm.data import find_text_set
from jaxllm.hardware import reach
from jaxllm.hardware.bucket import Bucket
from jaxllm.hardware.reach import unreachable
from tests.distributed.launch import free_port


def test_an_open_port_and_a_closed_one():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert unreachable("127.0.0.1", server.getsockname()[1]) is None
    assert unreachable("127.0.0.1", free_port()) == "Connection refused"


def test_one_address_of_several_is_enough(monkeypatch):
    """As where a host has two kinds of addresses, and the network one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = free_port(), server.getsockname()[1]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
        real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: found if host == "two" else real(host, *a, **k))
        assert unreachable("two", 1) is None


def test_a_name_that_is_looked_up_for_ever(monkeypatch):
    never = threading.Event()

    def look_up(*_, **__):
        never.wait(20)
        raise OSError("too late")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    begin = time.monotonic()
    assert unreachable("nowhere", 443, 0.2) == "no answer within 0.2 s"
    assert time.monotonic() - begin < 5
    never.set()


@pytest.fixture
def no_google(monkeypatch) -> str:
    """Google's storage at an address where nobody listens."""
    if importlib.util.find_spec("gcsfs") is None:
        pytest.skip("gcsfs is not installed")
    place = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", place)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    return place


def test_a_bucket_out_of_reach_is_said_to_be_that(no_google, capsys):
    assert reach.REACH_SECONDS < 10
    said = r"the bucket is out of reach \(no connection to 127.0.0.1: Connection refused\): is this host on the network\? "
    for look in (lambda: Bucket("gs://bucket/run"), lambda: find_text_set("gs://bucket/sets/mine")):
        with pytest.raises(OSError, match=said):
            look()
    begin = time.monotonic()
    assert run(["train", "tests/recipe/tiny.py", "--run-dir", "gs://bucket/run"]) != 0
    assert time.monotonic() - begin < 20
    told = capsys.readouterr().err
    assert re.search(said, told) and "gs://bucket/run" in told and "Traceback" not in told


def test_behind_a_proxy_it_is_left_to_the_library(no_google, monkeypatch):
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "http://proxy:3128"})
    reach.check_google_storage()
