"""`set_up` in fresh processes, because it must come before JAX's backend."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest

from jaxllm.hardware.cpu_probe import Candidate, ProbeResult, probe_path
from jaxllm.hardware.machine import num_cores

SCRIPT = """
import json, os
from jaxllm.hardware import chosen_setup, set_up
setup = set_up()
assert set_up() == setup == chosen_setup()
import jax
print(json.dumps([jax.device_count(), os.environ.get("XLA_FLAGS", ""), setup.reason, jax.config.jax_compilation_cache_dir]))
"""
FLAG = "--xla_cpu_multi_thread_eigen=false"


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A cache folder where a probe found three devices with a flag fastest."""
    monkeypatch.setenv("JAXLLM_CACHE", str(tmp_path))
    found = Candidate(num_devices=3, flags=FLAG, step_seconds=0.02, loss=3.0)
    path = probe_path(num_cores())
    path.write_text(json.dumps(asdict(ProbeResult(candidates=(found,)))))
    return tmp_path


def in_process(script: str = SCRIPT, **variables: str) -> list:
    keep = {k: v for k, v in os.environ.items() if k not in ("JAX_NUM_CPU_DEVICES", "JAXLLM_CPU_TUNING", "XLA_FLAGS")}
    done = subprocess.run([sys.executable, "-c", script], env=keep | variables, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_cached_choice_is_used(cache):
    assert in_process() == [3, FLAG, "fastest in the CPU probe", str(cache / "xla")]


def test_a_process_started_from_there_is_set_up_in_the_same_way(cache):
    child = "import jax, json, os; print(json.dumps([jax.device_count(), os.environ['XLA_FLAGS']]))"
    start = f"import subprocess, sys; sys.stdout.flush(); subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    assert in_process("from jaxllm.hardware import set_up\nset_up()\n" + start) == [3, FLAG]


def test_tuning_can_be_switched_off(cache):
    assert in_process(JAXLLM_CPU_TUNING="off")[:3] == [1, "", "JAXLLM_CPU_TUNING=off"]


@pytest.mark.parametrize(
    "variable, value, expected",
    [
        ("JAX_NUM_CPU_DEVICES", "5", [5, ""]),
        ("XLA_FLAGS", "--xla_cpu_enable_fast_math=false", [1, "--xla_cpu_enable_fast_math=false"]),
    ],
)
def test_what_the_user_set_wins(cache, variable, value, expected):
    assert in_process(**{variable: value})[:3] == [*expected, f"{variable} is set and wins"]


def test_a_cache_folder_that_the_user_gave_jax_stays(cache):
    assert in_process(JAX_COMPILATION_CACHE_DIR=str(cache / "mine"))[3] == str(cache / "mine")


def test_a_tpu_that_is_not_there_is_not_looked_for(cache, monkeypatch):
    """With libtpu, for planning: without set_up(), JAX would start its client, which complains at length."""
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    show = "import json, jax, os; jax.devices(); print(json.dumps([os.environ.get('JAX_PLATFORMS'), 'libtpu' in sys.modules]))"
    start = "import importlib.machinery, importlib.util, sys; find = importlib.util.find_spec\n"
    start += "fake = importlib.machinery.ModuleSpec('libtpu', None)\n"
    start += "importlib.util.find_spec = lambda name, *more: fake if name == 'libtpu' else find(name, *more)\n"
    assert in_process(start + "from jaxllm.hardware import set_up\nset_up()\n" + show) == ["cpu", False]


def test_too_late_is_said(cache):
    reason = in_process("import jax; jax.devices()\n" + SCRIPT)[2]
    assert reason == "JAX had chosen its devices before set_up() ran"


def test_light_parts_do_not_import_jax():
    assert in_process("import sys, jaxllm.hardware; print('true' if 'jax' in sys.modules else 'false')") is False
