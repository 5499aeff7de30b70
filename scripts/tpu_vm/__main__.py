"""TPU VMs on Google Cloud: rent a slice, train on all of its workers, survive preemption, bring the results home.

    python scripts/tpu_vm launch machines/my.toml configs/llama2_7b.py --mesh.fsdp 16
    python scripts/tpu_vm launch --dry-run ...        # prints every gcloud command, runs none

Needs Python 3.11 and gcloud, nothing else. README.md says more.
"""

import argparse
import os
import re
import sys
from pathlib import Path

import gcloud
import worker
from check import check_options
from gcloud import Cloud, CommandFailed, find
from launch import ROOT, Run, create, delete, install, launch, report
from machine import Machine, load_machine


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python scripts/tpu_vm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--dry-run", action="store_true", help="print every command, and run none")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, words: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=words, description=words)
        made.add_argument("--dry-run", action="store_true", default=argparse.SUPPRESS, help="print every command, and run none")
        made.add_argument("machine", type=Path, help="TOML file that describes the machine")
        return made

    verb("create", "rent the machine, and wait until it is ready")
    verb("setup", "copy the working tree to every worker, and install it")
    run = verb("launch", "create, set up, train on all workers, watch, and start again after a preemption")
    run.add_argument("--run", metavar="NAME", help="name of the run's folder in the bucket; by default the recipe's")
    run.add_argument("--restarts", type=int, default=20, help="how often at most to start again (default 20)")
    run.add_argument("--detach", action="store_true", help="do not watch; the run goes on, a preemption ends it")
    run.add_argument("--env", action="append", default=[], metavar="NAME[=VALUE]", help="variable for training; never printed")
    run.add_argument("recipe", help="a recipe, as for `jaxllm train`")
    run.add_argument("options", nargs=argparse.REMAINDER, help="options of `jaxllm train`")
    verb("status", "the machine's state, and each worker's")
    logs = verb("logs", "follow what training prints")
    logs.add_argument("--worker", default="0", help="a number, or all (default 0, which prints progress)")
    logs.add_argument("--lines", type=int, default=100, help="lines of the past (default 100)")
    shell = verb("run", "a shell command on every worker")
    shell.add_argument("--worker", default="all", help="a number, or all (default all)")
    shell.add_argument("command", nargs=argparse.REMAINDER, help="the command")
    verb("stop", "end training in order: it finishes its step, and saves")
    results = verb("results", "copy a run from the bucket")
    results.add_argument("run", help="name of the run")
    results.add_argument("--to", type=Path, help="folder here (default runs/NAME)")
    results.add_argument("--checkpoints", action="store_true", help="with its checkpoints, which are large")
    verb("delete", "give the machine back; what is in the bucket stays")
    return top


def make_run(options: argparse.Namespace) -> Run:
    """Raises:
    ValueError: a name that is no name of a folder; a variable that is not set; options that are launch's to give.
    """
    name = options.run or Path(options.recipe).stem
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ValueError(f"--run must be letters, digits, `_`, `.` and `-`: got {name!r}")
    if options.restarts < 0:
        raise ValueError(f"--restarts must be 0 or more: got {options.restarts}")
    for option in options.options:
        if option.partition("=")[0] in ("--dry-run", "--run", "--restarts", "--detach", "--env"):
            raise ValueError(f"{option} belongs to launch, not to training: put it before the recipe")
        if option in ("-h", "--help"):
            raise ValueError(f"{option} trains nothing: `jaxllm train {options.recipe} --help` lists every field")
    if any(option.partition("=")[0] in ("--run-dir", "--run_dir") for option in options.options):
        raise ValueError("--run-dir is chosen by launch, so that a run outlives its machine: give the run a name with --run")
    if not Path(options.recipe).is_file():
        raise ValueError(f"no recipe {options.recipe}: name a file of this working tree, such as configs/gpt2_124m.py")
    environment = {}
    for setting in options.env:
        variable, equals, value = setting.partition("=")
        if not equals and variable not in os.environ:
            raise ValueError(
                f"--env {variable} takes its value from here, where it is not set: set it, or give {variable}=VALUE"
            )
        environment[variable] = value if equals else os.environ[variable]
    return Run(name=name, options=[options.recipe, *options.options], environment=environment)


def run_verb(options: argparse.Namespace, machine: Machine) -> None:
    training = make_run(options) if options.verb == "launch" else None
    cloud = Cloud(dry_run=options.dry_run, secrets=training.environment.values() if training else ())
    if training:
        unchecked = check_options(ROOT, training.options)
        if unchecked is not None:
            cloud.say(f"options of the recipe are not checked here: {unchecked}")
        launch(cloud, machine, training, restarts=options.restarts, detach=options.detach)
    elif options.verb == "create":
        create(cloud, machine)
    elif options.verb == "setup":
        install(cloud, machine)
    elif options.verb == "status":
        status(cloud, machine)
    elif options.verb == "logs":
        script = worker.follow(options.lines, named=options.worker == "all")
        cloud.do(gcloud.ssh(machine, script, options.worker))
    elif options.verb == "run":
        words = options.command[1:] if options.command[:1] == ["--"] else options.command
        cloud.do(gcloud.ssh(machine, " ".join(words), options.worker))
    elif options.verb == "stop":
        cloud.do(gcloud.ssh(machine, worker.stop()))
    elif options.verb == "results":
        to = options.to or Path("runs") / options.run
        if not options.dry_run:
            to.mkdir(parents=True, exist_ok=True)
        without = None if options.checkpoints else "^checkpoints/.*"
        cloud.do(gcloud.copy_folder(f"{machine.bucket}/runs/{options.run}", str(to), without))
    elif options.verb == "delete":
        delete(cloud, machine)


def status(cloud: Cloud, machine: Machine) -> None:
    found = find(cloud, machine, "READY")
    cloud.say(f"{machine.name}: {found.state}{' (' + found.reason + ')' if found.reason else ''}")
    if found.state not in gcloud.READY:
        return
    workers = report(cloud, machine, "idle")
    if workers is None:
        cloud.say(f"not all of its {machine.workers} workers answered")
    for each in workers or []:
        cloud.say(f"  {each.host}: {each}")


def main() -> int:
    options = parser().parse_args()
    try:
        run_verb(options, load_machine(options.machine))
    except (ValueError, OSError, CommandFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted here; what runs on the machine goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
