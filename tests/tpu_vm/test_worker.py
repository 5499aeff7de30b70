"""worker.sh in a home folder of its own, with stand-ins for uv, gcloud and jaxllm."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = """#!/bin/bash
echo "uv $*" >> "$HOME/calls"
if [ "$1" = venv ]; then mkdir -p "${@: -1}/bin"; touch "${@: -1}/bin/python"; chmod +x "${@: -1}/bin/python"; fi
"""
GCLOUD = '#!/bin/bash\necho "gcloud $*" >> "$HOME/calls"\n'
JAXLLM = """#!/bin/bash
printf '<%s>' "$PWD" "$@"; echo
case "$*" in
    *fails*) exit 3 ;;
    *quick*) exit 0 ;;
esac
trap 'echo saved; exit 0' TERM
while true; do sleep 0.1; done
"""


@pytest.fixture
def home(tool, tmp_path):
    """A worker's home folder, with the archive in it; whatever runs is ended at the end."""
    for name, text in (("uv", UV), ("gcloud", GCLOUD)):
        path = tmp_path / ".local" / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "scripts" / "tpu_vm", tree / "scripts" / "tpu_vm", ignore=shutil.ignore_patterns("__pycache__"))
    (tree / ".gitignore").write_text("*.data\n")
    (tree / "huge.data").write_text("ignored")
    for command in ("init -q", "add .", "-c user.name=a -c user.email=b commit -q -m c"):
        subprocess.run(["git", "-C", tree, *command.split()], check=True)
    (tree / "new.txt").write_text("not committed")
    assert tool("archive").pack(tree, tmp_path / "code.tar.gz")
    yield tmp_path
    shell(tmp_path, tool("worker").end())


def shell(home: Path, script: str) -> str:
    """What a worker prints, given `script` as ssh gives it."""
    env = os.environ | {"HOME": str(home), "PATH": f"{home}/.local/bin:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], cwd=home, env=env, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


@pytest.fixture
def say(tool, home):
    """The worker's answer to a command of worker.py."""
    worker = tool("worker")

    def ask(script):
        (found,) = worker.answers(shell(home, script))
        return str(found)

    return ask


@pytest.fixture
def installed(tool, home, say):
    assert say(tool("worker").install("code.tar.gz", None)) == "installed"
    jaxllm = home / "jaxllm-env" / "bin" / "jaxllm"
    jaxllm.write_text(JAXLLM)
    jaxllm.chmod(0o755)
    return home


def start(tool, *options, run="mine"):
    return tool("worker").start(run, options, {}, "gs://bucket/logs")


def becomes(say, tool, words: str) -> bool:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if say(tool("worker").report()) == words:
            return True
        time.sleep(0.2)
    return False


def test_a_bare_machine_is_idle(tool, home, say):
    assert say(tool("worker").report()) == "idle"


def test_installation_brings_the_working_tree_and_an_environment(tool, installed, say):
    assert (installed / "jaxllm" / "new.txt").read_text() == "not committed"
    assert not (installed / "jaxllm" / "huge.data").exists() and not (installed / "jaxllm" / ".git").exists()
    assert (installed / "calls").read_text().splitlines() == [
        f"uv venv --quiet --python 3.12 {installed}/jaxllm-env",
        f"uv pip install --quiet --python {installed}/jaxllm-env/bin/python --editable {installed}/jaxllm[tpu,gcs]",
    ]
    (installed / "jaxllm" / "old.txt").write_text("of an earlier installation")
    assert say(tool("worker").install("code.tar.gz", 'echo "it\'s" ready > prepared')) == "installed"
    assert (installed / "prepared").read_text() == "it's ready\n"
    assert not (installed / "jaxllm" / "old.txt").exists()
    assert (installed / "calls").read_text().count("uv venv") == 1


def test_a_failed_preparation_is_no_installation(tool, home):
    found = shell(home, tool("worker").install("code.tar.gz", "echo no such bucket; false"))
    assert "no such bucket" in found and tool("worker").answers(found) == []


def test_a_run_outlives_its_connection_and_is_there_once(tool, installed, say):
    words = 'it\'s $HOME; "ok"'
    assert say(start(tool, "configs/x.py", "--prompt", words)) == "running mine"
    assert say(start(tool, "configs/x.py")) == "running mine"
    assert say(tool("worker").install("code.tar.gz", None)) == "running mine"
    log = (installed / "jaxllm-run" / "mine.log").read_text()
    assert log == f"<{installed}/jaxllm><train><configs/x.py><--prompt><{words}>\n"
    assert shell(installed, tool("worker").tail(1)) == log


def test_a_stop_lets_training_save(tool, installed, say):
    say(start(tool, "configs/x.py"))
    say(tool("worker").stop())
    assert becomes(say, tool, "stopped mine")
    assert (installed / "jaxllm-run" / "mine.log").read_text().endswith("saved\n")
    assert say(start(tool, "configs/x.py", run="next")) == "running next"


@pytest.mark.parametrize(("option", "code"), [("quick", 0), ("fails", 3)])
def test_an_end_leaves_its_code_and_its_log_in_the_bucket(tool, installed, say, option, code):
    say(start(tool, option))
    assert becomes(say, tool, f"ended mine, exit code {code}")
    copied = (installed / "calls").read_text().splitlines()[-1]
    host = subprocess.run(["hostname"], capture_output=True, text=True).stdout.strip()
    assert copied == f"gcloud storage cp --quiet {installed}/jaxllm-run/mine.log gs://bucket/logs/{host}.log"


def test_a_machine_that_goes_down_leaves_an_interrupted_run(tool, installed, say):
    say(start(tool, "configs/x.py"))
    group = int((installed / "jaxllm-run" / "group").read_text())
    os.killpg(group, 15)  # what a shutdown does: to all processes, the shell that would write the exit code among them
    assert becomes(say, tool, "interrupted mine")
    assert say(start(tool, "configs/x.py")) == "running mine"


def test_an_end_by_force_leaves_nothing_in_memory(tool, installed, say):
    say(start(tool, "configs/x.py"))
    process = int((installed / "jaxllm-run" / "process").read_text())
    assert say(tool("worker").end()) == "interrupted mine"
    status = Path(f"/proc/{process}/status")
    assert not status.exists() or "zombie" in status.read_text()  # nobody may be there to bury it


def test_variables_reach_training(tool, installed, say):
    (installed / "jaxllm-env" / "bin" / "jaxllm").write_text('#!/bin/bash\necho "$TOKEN"\n')
    say(tool("worker").start("mine", ["x"], {"TOKEN": "a 'b'"}, "gs://bucket/logs"))
    assert becomes(say, tool, "ended mine, exit code 0")
    assert (installed / "jaxllm-run" / "mine.log").read_text() == "a 'b'\n"


def test_a_folder_that_is_no_checkout_or_far_too_large_is_refused(tool, tmp_path, monkeypatch):
    archive = tool("archive")
    with pytest.raises(ValueError, match="must be a git checkout with a commit"):
        archive.pack(tmp_path, tmp_path / "code.tar.gz")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "large.bin").write_bytes(b"x" * 2000)
    monkeypatch.setattr(archive, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="the largest file is large.bin"):
        archive.pack(tmp_path, tmp_path / "code.tar.gz")
