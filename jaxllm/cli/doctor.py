"""`jaxllm doctor`: check this machine, and say what to do about it."""

import dataclasses
from typing import TYPE_CHECKING

from jaxllm.cli.parser import Parser

if TYPE_CHECKING:
    from jaxllm.distributed import Hosts
    from jaxllm.hardware import Finding


def run(argv: list[str]) -> int:
    parser = Parser(
        prog="jaxllm doctor",
        usage="jaxllm doctor [RECIPE [--field VALUE ...]] [option ...]",
        description="Checks versions, devices, memory, disk, caches and the CPU settings chosen for this machine; with a "
        "recipe also its mesh, data and run folder, be they in a bucket, with fields changed as in `jaxllm train`, such as "
        "--mesh.fsdp 4; with --coordinator whether the processes can meet.",
        epilog="Exit code 0 if jaxllm can work here, 1 if something is broken. JAXLLM_CPU_TUNING=off leaves JAX as it comes.",
    )
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="a recipe or the folder of a run")
    parser.add_argument("--run-dir", metavar="DIR", help="where a run would write: a folder, or a gs:// URL, which is tried")
    parser.add_argument("--measure", action="store_true", help="measure the CPU settings again (about half a minute)")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 of a run is to be reached")
    parser.add_argument("--num-processes", type=int, metavar="N", help="how many processes the run has")
    parser.add_argument("--process-index", type=int, metavar="I", help="which of them is here")
    own, fields = parser.split_fields(argv)
    options = parser.parse_args(own)
    if fields and options.recipe is None:
        parser.error(
            f"{fields[0]} is no option of doctor: a field of a recipe comes behind it, `jaxllm doctor RECIPE {fields[0]} ...`"
        )
    from jaxllm.distributed import Hosts
    from jaxllm.hardware import checkup, forget_probe, num_cores, set_up, usable

    if options.measure:
        forget_probe(num_cores())
    set_up()
    findings = checkup()
    hosts = Hosts(coordinator=options.coordinator, num_processes=options.num_processes, process_index=options.process_index)
    findings["processes"], count = _processes(hosts)
    if options.recipe is not None:
        from jaxllm.cli.overrides import override
        from jaxllm.recipe import find_recipe
        from jaxllm.recipe.checkup import check_recipe

        recipe = override(find_recipe(options.recipe), fields)
        recipe = dataclasses.replace(recipe, run_dir=options.run_dir or recipe.run_dir)
        findings |= check_recipe(recipe, count)
    elif options.run_dir is not None:
        from jaxllm.recipe.checkup import check_run_dir

        findings["run folder"] = check_run_dir(options.run_dir, count)
    for subject, rows in findings.items():
        print(subject)
        for row in rows:
            print(f"  {row.level:<7} {row.text}")
            if row.advice:
                print(f"          -> {row.advice}")
    good = usable(findings)
    print("jaxllm can work here" if good else "something is broken: see the lines marked `broken`")
    return 0 if good else 1


def _processes(given: "Hosts") -> "tuple[list[Finding], int]":
    """Who the processes of a run would be, by options, environment or cluster, whether this one can meet the others, and how
    many they are."""
    from jaxllm.distributed import find_hosts
    from jaxllm.hardware import Finding

    try:
        hosts = find_hosts(given)
    except (ValueError, RuntimeError, OSError) as error:
        advice = "give all three options, the same way as for `jaxllm train`"
        return [Finding("broken", " ".join(str(error).split()), advice)], given.num_processes or 1
    if hosts is None:
        return [Finding("ok", "one: no cluster found, and no --coordinator given")], 1
    return [_meeting(hosts)], hosts.num_processes or 1


def _meeting(hosts: "Hosts") -> "Finding":
    from jaxllm.distributed import check_coordinator
    from jaxllm.hardware import Finding

    told = f"{hosts.num_processes}, of which this is {hosts.process_index}; process 0 at {hosts.coordinator}"
    problem = check_coordinator(hosts)
    if problem is None:
        reached = "its port is free" if hosts.process_index == 0 else "it answers"
        return Finding("ok", f"{told}: {reached}")
    if hosts.process_index == 0:
        return Finding("broken", f"{told}: {problem}", "choose another port, or end the program that has this one")
    return Finding("note", f"{told}: {problem}", "start process 0 first; if it runs, look at the address and at firewalls")
