"""A crash in the part of a command that goes on in a child."""

import subprocess
import sys

import pytest

from jaxllm.cli.child import KILLED, go_on_in_child


@pytest.mark.parametrize(
    ("then", "code", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", 1, "error: SIGSEGV: the compiler crashed\n"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 128 + 9, f"error: SIGKILL: {KILLED}\n"),
        ("sys.exit(5)", 5, ""),
        ("sys.exit('error: no')", 1, "error: no\n"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 128 + 15, ""),
        ("os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)", 128 + 15, ""),
    ],
)
def test_a_crash_is_told_and_exit_codes_pass(then, code, said):
    program = (
        "import os, signal, sys, time\nfrom jaxllm.cli.child import go_on_in_child\n"
        f"code = go_on_in_child('the compiler crashed')\nif code is None:\n    print('here')\n    {then}\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (code, said)


def test_a_signal_between_the_fork_and_its_handler_reaches_the_child():
    program = (
        "import os, signal, sys, time\nfrom jaxllm.cli.child import go_on_in_child\n"
        "fork = os.fork\n"
        "def late():\n    child = fork()\n    if child:\n        os.kill(os.getpid(), signal.SIGTERM)\n    return child\n"
        "os.fork = late\ncode = go_on_in_child('')\nif code is None:\n    time.sleep(60)\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (128 + 15, "")


def test_where_jax_is_there_already_nothing_is_forked():
    assert go_on_in_child("") is None
