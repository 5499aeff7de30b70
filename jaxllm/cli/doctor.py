"""`jaxllm doctor`: check this machine, and say what to do about it."""

from jaxllm.cli.parser import Parser


def run(argv: list[str]) -> int:
    parser = Parser(
        prog="jaxllm doctor",
        description="Checks versions, devices, memory, disk, caches and the CPU settings chosen for this machine.",
        epilog="Exit code 0 if jaxllm can work here, 1 if something is broken. JAXLLM_CPU_TUNING=off leaves JAX as it comes.",
    )
    parser.add_argument("--measure", action="store_true", help="measure the CPU settings again (about half a minute)")
    options = parser.parse_args(argv)
    from jaxllm.hardware import checkup, forget_probe, num_cores, set_up, usable

    if options.measure:
        forget_probe(num_cores())
    set_up()
    findings = checkup()
    for subject, rows in findings.items():
        print(subject)
        for row in rows:
            print(f"  {row.level:<7} {row.text}")
            if row.advice:
                print(f"          -> {row.advice}")
    good = usable(findings)
    print("jaxllm can work here" if good else "something is broken: see the lines marked `broken`")
    return 0 if good else 1
