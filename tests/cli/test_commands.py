"""The command line as a program: help at once, version, and what only a process of its own can show."""

import os
import subprocess
import sys
import time

import pytest

from jaxllm import __version__
from jaxllm.cli import COMMANDS


def jaxllm(*argv: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "jaxllm", *argv], capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("argv", [[], *([name] for name in COMMANDS), ["data", "build"], ["data", "show"]], ids=" ".join)
def test_help_imports_no_jax(argv):
    code = (
        "import sys\nfrom jaxllm.cli import run\n"
        f"try:\n    code = run({[*argv, '--help']})\nexcept SystemExit as stop:\n    code = stop.code\n"
        "assert not code and not {'jax', 'numpy', 'tyro'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: jaxllm" in done.stdout


def test_version_and_help_are_instant():
    """0.3 s is promised on a quiet machine; the best of a few tries, because tests share theirs."""
    took = []
    for _ in range(5):
        start = time.perf_counter()
        done = jaxllm("--help")
        took.append(time.perf_counter() - start)
    assert done.returncode == 0 and all(name in done.stdout for name in COMMANDS)
    assert min(took) < 0.3
    assert jaxllm("--version").stdout == f"jaxllm {__version__}\n"


def test_importing_the_package_is_light():
    code = "import sys, jaxllm; assert not {'jax', 'numpy', 'flax', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_such_device(tmp_path):
    done = jaxllm(
        "train",
        "configs/shakespeare_char.py",
        "--run-dir",
        str(tmp_path / "run"),
        JAX_PLATFORMS="cuda",
        JAX_NUM_CPU_DEVICES="1",
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: no such device: JAX_PLATFORMS=cuda cannot be used here" in done.stderr
    assert not (tmp_path / "run").exists()
