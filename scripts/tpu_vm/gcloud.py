"""The gcloud commands, and the one place that runs them.

Names and flags are those of cloud.google.com/sdk/gcloud/reference: compute tpus tpu-vm, compute tpus queued-resources,
storage rsync.
"""

import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from machine import Machine

Command = list[str]


def create(machine: Machine) -> Command:
    """Of one slice gcloud waits until it is there; a queued resource only enters the queue."""
    runtime = machine.runtime or machine.slice.generation.runtime
    if machine.queued:
        nodes = [f"--node-id={machine.name}"]
        if machine.slices > 1:
            nodes = [f"--node-count={machine.slices}", f"--node-prefix={machine.name}"]
        flags = [*machine.slice.flags, f"--runtime-version={runtime}", *nodes]
    else:
        flags = [*machine.slice.flags, f"--version={runtime}"]
    spot = ["--spot"] if machine.spot else []
    return [
        *_tpus(machine, "create", machine.slice.track),
        machine.name,
        *_where(machine),
        *flags,
        *spot,
        *machine.create_flags,
        "--quiet",
    ]


def describe(machine: Machine) -> Command:
    return [*_tpus(machine, "describe"), machine.name, *_where(machine), "--format=json"]


def ssh(machine: Machine, script: str, worker: str = "all") -> Command:
    """`script` in bash on that worker, or on all of them."""
    return [
        *_tpus(machine, "ssh"),
        machine.name,
        *_where(machine),
        *_workers(machine, worker),
        f"--command={script}",
        *machine.ssh_flags,
        "--quiet",
    ]


def scp(machine: Machine, file: Path) -> Command:
    """A copy of `file` in the home folder of every worker."""
    to = f"{machine.name}:{file.name}"
    return [
        *_tpus(machine, "scp"),
        str(file),
        to,
        *_where(machine),
        *_workers(machine, "all"),
        *machine.ssh_flags,
        "--quiet",
    ]


def delete(machine: Machine) -> Command:
    force = ["--force"] if machine.queued else []  # its nodes too
    return [*_tpus(machine, "delete"), machine.name, *_where(machine), *force, "--quiet"]


def copy_folder(source: str, to: str, without: str | None) -> Command:
    """Args:
    without: regular expression of paths, from `source` on, that are left out.
    """
    exclude = [f"--exclude={without}"] if without else []
    return ["gcloud", "storage", "rsync", source, to, "--recursive", *exclude]


def _tpus(machine: Machine, verb: str, track: Iterable[str] = ()) -> Command:
    return ["gcloud", *track, "compute", "tpus", "queued-resources" if machine.queued else "tpu-vm", verb]


def _where(machine: Machine) -> Command:
    return [f"--zone={machine.zone}", *([f"--project={machine.project}"] if machine.project else [])]


def _workers(machine: Machine, worker: str) -> Command:
    node = ["--node=all" if worker == "all" else "--node=0"] if machine.queued else []
    return [*node, f"--worker={worker}"]


ASK_SECONDS = 1800
"""Longest wait for an answer: an installation on many workers takes long, a lost machine never answers."""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    error: str


class CommandFailed(Exception):
    """A command of gcloud's that did not work, in a sentence or two."""


class Cloud:
    """Runs commands; a dry run prints them instead, and goes on as if each had worked."""

    def __init__(self, *, dry_run: bool, secrets: Iterable[str] = ()) -> None:
        self.dry_run = dry_run
        self.secrets = tuple(secret for secret in secrets if secret)
        """Texts that are never printed."""

    def say(self, text: str) -> None:
        print(f"# {text}" if self.dry_run else text, flush=True)

    def ask(self, command: Command, pretend: str = "") -> Answer:
        """What it answers, good or bad; in a dry run `pretend`."""
        return self._call(command, pretend, capture=True)

    def do(self, command: Command) -> None:
        """Runs it in the open.

        Raises:
          CommandFailed: its exit code is not 0.
        """
        code = self._call(command, "", capture=False).code
        if code != 0:
            raise CommandFailed(f"this command ended with exit code {code}, see above: {self._shown(command)}")

    def sleep(self, seconds: float) -> None:
        if not self.dry_run:
            time.sleep(seconds)

    def now(self) -> float:
        return time.monotonic()

    def _call(self, command: Command, pretend: str, *, capture: bool) -> Answer:
        if self.dry_run:
            print(self._shown(command), flush=True)
            return Answer(0, pretend, "")
        if shutil.which(command[0]) is None:
            raise CommandFailed(
                f"{command[0]} is not installed: see cloud.google.com/sdk/docs/install; --dry-run shows the commands without it"
            )
        if not capture:
            return Answer(subprocess.run(command, stdin=subprocess.DEVNULL).returncode, "", "")
        try:
            done = subprocess.run(
                command, capture_output=True, stdin=subprocess.DEVNULL, text=True, errors="replace", timeout=ASK_SECONDS
            )
        except subprocess.TimeoutExpired:
            return Answer(124, "", f"no answer in {ASK_SECONDS} s")
        return Answer(done.returncode, done.stdout, done.stderr)

    def _shown(self, command: Command) -> str:
        text = shlex.join(command)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


READY = {"READY", "ACTIVE"}
WAITING = {"ACCEPTED", "CREATING", "PROVISIONING", "WAITING_FOR_RESOURCES", "STARTING", "RESTARTING", "REIMAGING", "REPAIRING"}
LOST = {"PREEMPTED", "TERMINATED", "FAILED", "SUSPENDING", "SUSPENDED"}
ABSENT = "ABSENT"


@dataclass(frozen=True)
class Found:
    state: str
    """Google's word for it, or ABSENT."""
    type: str | None = None
    """Accelerator type."""
    reason: str | None = None
    """Why it failed, where it did."""


def find(cloud: Cloud, machine: Machine, pretend: str) -> Found:
    """What Google Cloud has under that name.

    Raises:
      CommandFailed: gcloud does not say; no rights, not logged in.
    """
    answer = cloud.ask(describe(machine), json.dumps({"state": pretend}))
    if answer.code != 0:
        if "NOT_FOUND" in answer.error or "not found" in answer.error.lower():
            return Found(ABSENT)
        raise CommandFailed(f"gcloud could not describe {machine.name}: {last_words(answer.error)}")
    found = json.loads(answer.out)
    state, node = found["state"], found
    reason = None
    if isinstance(state, dict):
        reason = state.get("failedData", {}).get("error", {}).get("message")
        state = state["state"]
        node = next((spec.get("node", {}) for spec in found.get("tpu", {}).get("nodeSpec", [])), {})
    return Found(state, node.get("acceleratorType"), reason)


def last_words(text: str) -> str:
    """The last lines that say something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[-3:]) or "it gave no reason"
