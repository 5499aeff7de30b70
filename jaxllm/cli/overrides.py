"""Dotted options over a recipe: `--mesh.data 2`, typed and checked by the recipe's own dataclasses."""

import contextlib
import dataclasses
import difflib
import io
import re
from collections.abc import Iterator
from typing import Any, get_args

from jaxllm.finetune import AnyMethod
from jaxllm.recipe import Recipe


def override(recipe: Recipe, options: list[str]) -> Recipe:
    """The recipe with these options applied: `--method lora` is another method, `--method.rank 4` a field of that.

    Raises:
      ValueError: an unknown field, with the nearest name, or a value that its type or the recipe refuses.
    """
    recipe, options = with_method(recipe, options)
    if not options:
        return recipe
    if not {"-h", "--help"} & set(options):
        check_names(recipe, options)
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            settings = (tyro.conf.AvoidSubcommands,)  # of the kinds of model, data and objective those of the recipe
            return tyro.cli(Recipe, default=recipe, args=options, prog="jaxllm train RECIPE", config=settings)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_plain(said.getvalue())) from None


METHODS: dict[str, type] = {re.sub("tuning$", "-tuning", method.__name__.lower()): method for method in get_args(AnyMethod)}
"""Fine-tuning methods by the name that `--method` takes: lora, prefix-tuning."""


def with_method(recipe: Recipe, options: list[str]) -> tuple[Recipe, list[str]]:
    """The recipe with the method that `--method` names, if another as it comes, and the other options."""
    words = [word for option in options for word in (option.split("=", 1) if option.startswith("--method=") else [option])]
    if "--method" not in words:
        return recipe, options
    place = words.index("--method")
    name = "".join(words[place + 1 : place + 2])
    found = {known.replace("-", ""): method for known, method in METHODS.items()}.get(re.sub("[-_]", "", name).lower())
    if found is None:
        raise ValueError(f"--method must be one of {', '.join(METHODS)}: got {name!r}")
    if not isinstance(recipe.method, found):
        recipe = dataclasses.replace(recipe, method=found())
    return recipe, words[:place] + words[place + 2 :]


def field_names(node: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields that hold a value."""
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield from field_names(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


ABBREVIATED = {
    **{"lr": "learning-rate", "wd": "weight-decay", "warmup": "warmup-steps", "grad-clip": "clip-norm"},
    **{"bs": "batch-size", "batch": "batch-size", "max-steps": "steps", "num-steps": "steps", "iters": "steps"},
    **{"seq-length": "seq-len", "max-seq-len": "seq-len", "block-size": "seq-len", "context-length": "context-len"},
    **{"layers": "num-layers", "heads": "num-heads", "dim": "embed-dim", "hidden-size": "embed-dim", "width": "embed-dim"},
}
"""Names that fields have elsewhere, and ours."""


def check_names(recipe: Recipe, options: list[str]) -> None:
    """Raises ValueError for an option that is no field, with the nearest name."""
    names = {f"--{name}".replace("_", "-"): None for name in field_names(recipe)}
    for option in options:
        name = option.partition("=")[0].replace("_", "-")
        if not name.startswith("--"):
            continue
        field = name[2:]
        flag_off = re.sub(r"(^|\.)no-([^.]*)$", r"\1\2", field)
        if f"--{field}" in names or f"--{flag_off}" in names:
            continue
        if field.startswith("method."):
            there = ", ".join(own.removeprefix("--method.") for own in names if own.startswith("--method.")) or "no fields"
            kind = type(recipe.method).__name__
            raise ValueError(f"{name} is no field of the method {kind}, which has {there}; --method NAME takes another")
        method, _, own = field.partition(".")
        if method in METHODS:
            raise ValueError(f"unknown field {name}: say --method {method} and --method.{own}")
        near = difflib.get_close_matches(name, names, n=1)
        group, _, last = field.rpartition(".")
        ends = [known for known in names if known.lstrip("-").rpartition(".")[2] == ABBREVIATED.get(last, last)]
        ends.sort(key=lambda known: not known.startswith(f"--{group}."))  # of the same group first
        hint = (ends or near or [None])[0]
        raise ValueError(
            f"unknown field {name}: " + (f"did you mean {hint}?" if hint else "`jaxllm train RECIPE --help` lists every field")
        )


REWORDED = (
    (r"Argument helptext:.*", ""),
    (r"^(Value error|Missing argument|Invalid choice|Unrecognized options|Required options)s? ", ""),
    (r"Error parsing (\S+): ", r"\1: "),
    (r"invalid literal for int\(\) with base 10: (.*)", r"must be a whole number: got \1"),
    (r"could not convert string to float: (.*)", r"must be a number: got \1"),
    (r"no type matching (\S+( \S+)?) could be instantiated from \[(.*?)\].*", r"must be \1: got \3"),
    (r"[Ii]nvalid choice (\S+) for argument '(\S+)'\. Expected one of \((.*)\)\.", r"\2 must be one of \3: got \1"),
    (r"Unrecognized options: (?i:true|false)\b.*", r"a switch takes no value: --GROUP.NAME turns it on, --GROUP.no-NAME off"),
    (r"Unrecognized options: (.*)", r"unknown option \1: a field is --name VALUE"),
)
"""tyro's words, and ours: what was expected, and what came."""


def _plain(text: str) -> str:
    """The message in tyro's box, in one line."""
    lines = (re.sub(r"[│╭╮╰╯─━]+|-{3,}|^\||\|$", " ", line).strip() for line in text.splitlines())
    words = " ".join(line for line in lines if line and not line.startswith(("Parsing error", "For full helptext")))
    words = re.sub(r"\s+", " ", words).strip()
    for pattern, replacement in REWORDED:
        words = re.sub(pattern, replacement, words).strip()
    return words
