"""`jaxllm plan`: does a recipe fit hardware that is not here, and how fast would it be?"""

HELP = """usage: jaxllm plan RECIPE|RUN_DIR [--topology NAME] [--slices N] [--phase train|prefill|decode] [--length N]
                   [--search] [--compile N] [--json FILE] [--report FILE] [--price X] [--field VALUE ...]

Compiles the step that would run, for a TPU slice that is not here or for this machine's devices, and says how much memory a
device needs, what is sent between devices, and how long a step would take. Times are estimates. Exits with 1 if it does not
fit.
A TPU slice needs the TPU's compiler: pip install 'jaxllm[tpu]'

  --topology NAME   v5e:4x4, v5p:2x2x4, v6e-16, ...; by default this machine's own devices
  --slices N        slices joined by the data centre's network
  --phase NAME      train (the default); prefill: read prompts into a cache; decode: write one token of each row
  --length N        tokens of a prompt, or slots of the cache; by default data.seq_len
  --search          try mesh shapes, remat policies and rows a device; print the best with the options to use
  --compile N       how many of them to compile, 4 by default; the others are only counted
  --price X         dollars per chip and hour, to estimate what a billion tokens cost
  --json FILE       write the figures there, and report.html beside it
  --report FILE     write the report, one HTML page, there instead
  --mesh.fsdp 16, --batch-size 16, --accumulate 2, ...: any field of the recipe, dotted

  jaxllm plan configs/llama_1b.py --topology v5e:4x4 --mesh.fsdp 16
"""
OWN = {
    "--topology": str, "--slices": int, "--phase": str, "--length": int, "--compile": int, "--price": float, "--json": str,
    "--report": str,
}  # fmt: skip
PHASES = ("train", "prefill", "decode")


def run(argv: list[str]) -> int:
    if not argv or argv[0].startswith("-") or {"-h", "--help"} & set(argv):
        print(HELP, end="")
        return 0 if {"-h", "--help"} & set(argv) else 2
    source, *rest = argv
    own, rest = _own_options(rest)
    _check(own)
    import os

    if own.get("--topology"):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a machine without a TPU, whose compiler would look for one
        if (code := _in_child()) is not None:
            return code

    from jaxllm.cli.overrides import override
    from jaxllm.hardware import set_up
    from jaxllm.plan import make_plan
    from jaxllm.recipe import find_recipe

    set_up()
    recipe, place = override(find_recipe(source), rest), (own.get("--topology") or "here", own.get("--slices", 1))
    if own.get("--search"):
        return _search(recipe, place, own)
    plan = make_plan(recipe, *place, phase=own.get("--phase") or "train", length=own.get("--length"))
    _write(plan, own, [source, *argv[1:]])
    return 0 if plan.memory.fits is not False else 1


def _in_child() -> int | None:
    """The TPU's compiler may end its process; see `go_on_in_child`."""
    from importlib.metadata import PackageNotFoundError, version

    from jaxllm.cli.child import go_on_in_child

    try:
        name = f"libtpu {version('libtpu')}"
    except PackageNotFoundError:
        return None  # told later
    return go_on_in_child(
        f"the TPU's compiler, {name}, crashed on this program, or ran out of memory; another version of libtpu and jax, or "
        "other sizes (--batch-size, --length, --mesh.fsdp), may pass"
    )


def _search(recipe, place: tuple[str, int], own: dict) -> int:
    import json
    from pathlib import Path

    from jaxllm.plan import as_json, describe_search, search

    result = search(recipe, *place, compiled=own.get("--compile", 4), say=lambda line: print(line, flush=True))
    print(describe_search(result, own.get("--price")))
    if own.get("--json"):
        rows = [
            {"options": row.overrides, "refused": row.refused}
            | ({} if row.plan is None else as_json(row.plan, own.get("--price")))
            for row in result.found
        ]
        Path(own["--json"]).write_text(json.dumps({"search": rows}, indent=2) + "\n", encoding="utf-8")
    return 0 if any(row.speed for row in result.found) else 1


def _write(plan, own: dict, words: list[str]) -> None:
    import json
    import shlex
    from pathlib import Path

    from jaxllm.plan import as_json, describe, write_plan_report

    price = own.get("--price")
    print(describe(plan, price))
    report = own.get("--report")
    if own.get("--json"):
        Path(own["--json"]).write_text(json.dumps(as_json(plan, price), indent=2) + "\n", encoding="utf-8")
        report = report or Path(own["--json"]).parent / "report.html"
    if report:
        print(f"report: {write_plan_report(plan, Path(report), command=shlex.join(['jaxllm', 'plan', *words]), price=price)}")


def _own_options(argv: list[str]) -> tuple[dict, list[str]]:
    """The command's own options, and those of the recipe."""
    own, rest, words = {}, [], iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--search" and not equals:
            own[name] = True
            continue
        if name not in OWN:
            rest.append(word)
            continue
        value = value if equals else next(words, None)
        if value is None or value.startswith("--"):
            raise ValueError(f"{name} needs a value: got none; see jaxllm plan --help")
        try:
            own[name] = OWN[name](value)
        except ValueError:
            raise ValueError(f"{name} must be a number: got {value!r}") from None
    return own, rest


def _check(own: dict) -> None:
    """Before minutes of compiling."""
    import math
    from pathlib import Path

    phase, search = own.get("--phase", "train"), "--search" in own
    if phase not in PHASES:
        raise ValueError(f"--phase must be one of {', '.join(PHASES)}: got {phase!r}")
    if search and phase != "train":
        raise ValueError(f"--search is for training: got --phase {phase}; leave one of them out")
    if search and "--report" in own:
        raise ValueError("--report is of one plan: leave it out of a --search, and plan again with the options that it prints")
    if "--compile" in own and not search:
        raise ValueError("--compile is how many layouts a search compiles: got it without --search; leave it out")
    if "--length" in own and phase == "train":
        raise ValueError("--length is for --phase prefill or decode: got train, whose sequences are --data.seq-len")
    if "--price" in own and not 0 < own["--price"] < math.inf:
        raise ValueError(f"--price must be dollars per chip and hour, above 0: got {own['--price']}")
    for name in ("--json", "--report"):
        if name in own and (Path(own[name]).is_dir() or not Path(own[name]).parent.is_dir()):
            raise ValueError(f"{name} must be a file in a folder that exists: got {own[name]}")
