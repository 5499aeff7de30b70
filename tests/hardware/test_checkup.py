import os
import shutil
import subprocess
import sys
from collections import namedtuple

import jax
import pytest

from jaxllm.cli.doctor import run
from jaxllm.hardware import Finding, checkup, usable
from jaxllm.hardware.checkup import wrong_versions
from jaxllm.recipe import save_json
from tests.distributed.launch import free_port
from tests.recipe import tiny


def found(text: str) -> list[Finding]:
    return [finding for rows in checkup().values() for finding in rows if text in finding.text]


def test_this_machine_is_usable(capsys):
    assert run([]) == 0
    out = capsys.readouterr().out
    assert f"jax {jax.__version__}" in out and "8 cpu (cpu)" in out and "compiled programs in" in out
    assert out.endswith("jaxllm can work here\n")


def test_a_broken_finding_makes_the_exit_code_1(monkeypatch, capsys):
    broken = {"versions": [Finding("ok", "fine"), Finding("broken", "flax is not installed", "pip install flax")]}
    monkeypatch.setattr("jaxllm.hardware.checkup", lambda: broken)
    assert run([]) == 1
    assert "-> pip install flax" in capsys.readouterr().out
    assert not usable(broken) and usable({"versions": [Finding("note", "slow")]})


def test_versions_that_do_not_fit():
    needs = ["jax>=0.1", "numpy<1", "no-such-package>=2", "torch; extra == 'oracle'"]
    findings = list(wrong_versions(needs, "3.12.1"))
    assert [finding.text.split()[0] for finding in findings] == ["numpy", "no-such-package"]
    assert findings[0].advice == "pip install --upgrade 'numpy<1'"
    assert [finding.text for finding in wrong_versions([], "3.10.4")] == ["Python must be 3.11 or later: this is 3.10.4"]


def test_little_disk_is_noted(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 2**20))
    assert all(finding.level == "note" for finding in found("GiB free"))
    assert len(found("GiB free")) == 2


def test_a_folder_that_cannot_be_written_is_noted(monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert {finding.advice for finding in found("cannot be written")} == {
        "give runs another place with --run-dir",
        "set JAXLLM_CACHE to a folder of yours",
    }


@pytest.mark.parametrize("platform", ["cuda", "no_such_platform"])
def test_a_platform_that_is_not_there_is_broken_without_a_traceback(platform):
    env = os.environ | {"JAX_PLATFORMS": platform}
    done = subprocess.run([sys.executable, "-m", "jaxllm", "doctor"], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "broken  JAX cannot start" in done.stdout and f"JAX_PLATFORMS={platform} is set" in done.stdout
    assert "Traceback" not in done.stderr


def test_processes_that_the_environment_tells_share_the_mesh(monkeypatch, tmp_path, capsys):
    save_json(tiny.config(), tmp_path / "recipe.json")
    told = {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0", "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    run([str(tmp_path / "recipe.json")])
    assert "of 16 devices of 2 processes" in capsys.readouterr().out
