"""A run on a rented machine, from nothing to its end, across preemptions."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gcloud
import worker
from archive import pack
from gcloud import ABSENT, LOST, READY, WAITING, Cloud, CommandFailed, find
from machine import Machine
from worker import Worker

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 30
QUICK_SECONDS = 900
"""A run that fails sooner, installation included, would fail again: it is not started again."""
STOPPED_BY_CLOUD = 75
"""Exit code of `jaxllm train` that saved and ended because the cloud announced that its machine goes."""
GRACE_POLLS = 4
"""How often others may still be seen running after one worker's training ended."""


@dataclass(frozen=True, kw_only=True)
class Run:
    name: str
    """Folder of the run in the bucket."""
    options: Sequence[str]
    """What follows `jaxllm train`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for training."""

    def folder(self, machine: Machine) -> str:
        return f"{machine.bucket}/runs/{self.name}"

    def script(self, machine: Machine) -> str:
        options = [*self.options, "--run-dir", self.folder(machine)]
        return worker.start(self.name, options, self.environment, f"{machine.bucket}/logs/{self.name}")


def create(cloud: Cloud, machine: Machine) -> None:
    """The machine is there and ready afterwards; one that was lost is made again.

    Raises:
      CommandFailed: no capacity, no rights, another machine of that name.
    """
    found = find(cloud, machine, ABSENT)
    wanted = machine.slice.accelerator_type
    if found.state != ABSENT and machine.slice.shape is None and found.type not in (None, wanted):
        raise CommandFailed(
            f"{machine.name} must be a {wanted}: there is one that is a {found.type}; delete it, or choose another name"
        )
    if found.state in LOST:
        cloud.say(f"{machine.name} is {found.state}: making it again")
        delete(cloud, machine)
        found = find(cloud, machine, ABSENT)
    if found.state == ABSENT:
        what = f"{machine.slices} x {wanted}, {machine.workers} workers, {_terms(machine)}, {machine.zone}"
        cloud.say(f"creating {machine.name}: {what}")
        _create(cloud, machine)
        found = find(cloud, machine, "ACTIVE" if machine.queued else "READY")
    said = None
    while found.state in WAITING:
        if found.state != said:
            cloud.say(f"{machine.name} is {found.state}; waiting, Ctrl-C leaves it as it is")
        said = found.state
        cloud.sleep(POLL_SECONDS)
        found = find(cloud, machine, "READY")
    if found.state not in READY:
        reason = f" ({found.reason})" if found.reason else ""
        raise CommandFailed(f"{machine.name} must be ready: it is {found.state}{reason}; delete it, or start it with gcloud")
    cloud.say(f"{machine.name} is ready")


def _create(cloud: Cloud, machine: Machine) -> None:
    try:
        cloud.do(gcloud.create(machine))
    except CommandFailed as error:
        hint = "" if machine.queued else "; where it says that there is no capacity, queued = true waits for it"
        raise CommandFailed(f"{error}{hint}") from None


def _terms(machine: Machine) -> str:
    return ("spot" if machine.spot else "on demand") + (", queued" if machine.queued else "")


def delete(cloud: Cloud, machine: Machine) -> None:
    """It is gone afterwards."""
    if find(cloud, machine, "READY").state == ABSENT:
        cloud.say(f"there is no {machine.name}")
        return
    cloud.do(gcloud.delete(machine))
    cloud.say(f"{machine.name} is deleted")


def install(cloud: Cloud, machine: Machine) -> None:
    """Code and environment on every worker; on those where a run goes on, nothing changes.

    Raises:
      CommandFailed: a worker that did not report success.
    """
    archive = Path(tempfile.gettempdir()) / f"{machine.name}.tar.gz"
    if not cloud.dry_run:
        cloud.say(f"copying the working tree, {pack(ROOT, archive)}")
    cloud.do(gcloud.scp(machine, archive))
    cloud.say(f"installing on {machine.workers} workers; minutes, the first time")
    answer = cloud.ask(gcloud.ssh(machine, worker.install(archive.name, machine.prepare)), _pretend(machine, "installed"))
    found = worker.answers(answer.out)
    if not found or any(each.state != "installed" for each in found) or len(found) < machine.workers:
        raise CommandFailed(_too_few("installed", found, machine, answer.error + "\n" + answer.out))


def report(cloud: Cloud, machine: Machine, state: str) -> list[Worker] | None:
    """What every worker says, or None where not all can be heard.

    Args:
      state: what a dry run pretends that they say.
    """
    answer = cloud.ask(gcloud.ssh(machine, worker.report()), _pretend(machine, state))
    found = worker.answers(answer.out)
    return found if len(found) >= machine.workers else None


def launch(cloud: Cloud, machine: Machine, run: Run, *, restarts: int, detach: bool) -> None:
    """Creates, installs, starts and watches, as far as each is still to do; ends with the run.

    Where it is interrupted, the run goes on, and the next `launch` finds it.

    Raises:
      CommandFailed: see `create` and `install`; a run that failed at once, or more often than `restarts`.
    """
    again = 0
    while True:
        started = cloud.now()
        try:
            create(cloud, machine)
            _start(cloud, machine, run)
        except CommandFailed as error:
            if again == 0:
                raise
            outcome = f"did not start: {error}"
        else:
            if detach or cloud.dry_run:
                cloud.say(f"{run.name} runs on {machine.name}: `logs` follows it, the same `launch` again watches it")
                return
            outcome = watch(cloud, machine, run)
        if outcome in ("finished", "stopped"):
            cloud.say(f"{run.name} is {outcome}; its folder is {run.folder(machine)}; {machine.name} costs until `delete`")
            return
        words = f"{run.name} {outcome}"
        if outcome == "failed":
            words = f"{words}; the last lines of its log:\n{_log(cloud, machine)}"
            cloud.ask(gcloud.ssh(machine, worker.end()))
            if cloud.now() - started < QUICK_SECONDS:
                raise CommandFailed(f"it came soon after the start, and would again: {words}")
        if again == restarts:
            raise CommandFailed(f"started again {again} times already, which is what --restarts allows: {words}")
        again += 1
        cloud.say(f"{words}\nstarting again from the newest checkpoint ({again} of {restarts})")
        cloud.sleep(POLL_SECONDS)


def watch(cloud: Cloud, machine: Machine, run: Run) -> str:
    """How the run ends: "finished", "stopped" by the user, "failed", or "preempted", its machine lost."""
    said, after_first_end = None, 0
    while True:
        cloud.sleep(POLL_SECONDS)
        workers = report(cloud, machine, "ended")
        if workers is None:
            state = _state(cloud, machine)
            if state in LOST or state == ABSENT:
                return "preempted"
            words = f"not all workers of {machine.name} can be heard, it is {state}; trying on"
        else:
            ended = [each for each in workers if each.state != "running" or each.run != run.name]
            after_first_end = after_first_end + 1 if ended else 0
            if len(ended) == len(workers):
                return _outcome(cloud, machine, workers)
            if after_first_end > GRACE_POLLS:
                return "failed"
            words = "; ".join(f"{each.host} {each}" for each in ended) or f"{run.name} runs on {len(workers)} workers"
        if words != said:
            cloud.say(words)
        said = words


def _state(cloud: Cloud, machine: Machine) -> str:
    """Google's word, or why there is none: this machine may be the one that is cut off."""
    try:
        return find(cloud, machine, "READY").state
    except CommandFailed as error:
        return f"unknown ({error})"


def _outcome(cloud: Cloud, machine: Machine, workers: list[Worker]) -> str:
    if any(each.state == "stopped" for each in workers):
        return "stopped"
    if any(each.code == STOPPED_BY_CLOUD for each in workers):
        return "preempted"
    if all(each.state == "ended" and each.code == 0 for each in workers):
        cloud.sleep(POLL_SECONDS)  # a preempted run ends in order, too, and its machine goes a moment later
        return "preempted" if _state(cloud, machine) in {*LOST, ABSENT} else "finished"
    return "failed"


def _start(cloud: Cloud, machine: Machine, run: Run) -> None:
    workers = report(cloud, machine, "idle")
    if workers is None:
        raise CommandFailed(f"not all of {machine.workers} workers of {machine.name} answered: try again, see `status`")
    others = {each.run for each in workers if each.state == "running" and each.run != run.name}
    if others:
        raise CommandFailed(f"{machine.name} must be free: {others.pop()} runs there; `stop` it, or wait")
    if all(each.state == "running" for each in workers):
        cloud.say(f"{run.name} runs there already")
        return
    if any(each.state == "running" for each in workers):
        cloud.say("a part of the workers runs without the others: ending that")
        cloud.ask(gcloud.ssh(machine, worker.end()))
    install(cloud, machine)
    cloud.say(f"starting {run.name} on {machine.workers} workers")
    answer = cloud.ask(gcloud.ssh(machine, run.script(machine)), _pretend(machine, "running"))
    found = worker.answers(answer.out)
    if len(found) < machine.workers:
        raise CommandFailed(_too_few("started", found, machine, answer.error))


def _log(cloud: Cloud, machine: Machine) -> str:
    return cloud.ask(gcloud.ssh(machine, worker.tail(20), worker="0")).out.rstrip()


def _too_few(done: str, found: list[Worker], machine: Machine, said: str) -> str:
    others = "; ".join(f"{each.host} {each}" for each in found if each.state not in (done, "running"))
    good = sum(each.state == done or done == "started" for each in found)
    return f"{good} of {machine.workers} workers {done}{'; ' + others if others else ''}: {gcloud.last_words(said)}"


def _pretend(machine: Machine, state: str) -> str:
    return "".join(f"{worker.MARK} worker-{number} {state}\n" for number in range(machine.workers))
