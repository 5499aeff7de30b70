"""`jaxllm data build --task`: the examples of a task from files."""

import argparse
import sys
import time

from jaxllm.cli.data_build import say_skipped, say_written, sources_of, split_config
from jaxllm.cli.table import print_table, split_table

TASKS = ("classification", "regression", "tokens", "qa", "text-to-text", "pairs", "chat", "preference")
FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "conll", "squad", "lines", "aligned")
_NOT_WITH_TASK = ("documents", "separator", "column", "label", "pair", "images", "no_header", "control_characters",
                  "repeated_lines", "min_chars", "language", "exact_duplicates", "near_duplicates")  # fmt: skip
_ONLY_WITH_TASK = ("columns", "validation_columns", "test_columns", "line", "format", "labels", "token_pattern")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("examples of a task").add_argument
    add("--task", choices=TASKS, help="kind of the task; each example is checked")
    add("--columns", nargs="+", default=[], metavar="ROLE=COLUMN", help="the column or JSON key of each role, such as "
        "text=sentence label=class; several joined as text=title+body; numbers from 1 in files without a header "
        "(default: the usual names)")  # fmt: skip
    for part in ("validation", "test"):
        add(f"--{part}-columns", nargs="+", default=[], metavar="ROLE=COLUMN",
            help=f"the same for the files of --{part}, where they are laid out otherwise")  # fmt: skip
    add("--line", metavar="PATTERN", help='what a line is made of, such as "{label} {text}" or "{text}@{label}"')
    add("--format", choices=FORMATS, help="what the files are (default: told from their endings and contents)")
    add("--labels", nargs="+", default=[], metavar="NAME", help="the classes in the order of their numbers, as NAME or "
        "VALUE=NAME (default: those of the files to train on)")  # fmt: skip
    add("--token-pattern", metavar="REGEX", help="keep of each token what the first group of this pattern holds")
    parser.set_defaults(default_of=parser.get_default)


def check_options(arguments: argparse.Namespace) -> None:
    """Refuse options of another kind of set."""
    wrong = _NOT_WITH_TASK if arguments.task else _ONLY_WITH_TASK
    for name in wrong:
        if getattr(arguments, name) != arguments.default_of(name):
            advice = (
                "does not go with --task: name the columns with --columns ROLE=COLUMN" if arguments.task else "needs --task"
            )
            raise ValueError(f"--{name.replace('_', '-')} {advice}, or leave it out")


def build(arguments: argparse.Namespace) -> int:
    sources = sources_of(arguments)
    from jaxllm.data.build_task import build_task_set
    from jaxllm.data.task_files import TaskRead

    begin = time.perf_counter()
    own = {"validation": arguments.validation_columns, "test": arguments.test_columns}
    report = build_task_set(
        arguments.name,
        sources,
        read=TaskRead(
            task=arguments.task,
            columns=_columns(arguments.columns),
            own_columns={part: _columns(given) for part, given in own.items() if given},
            format=arguments.format,
            line=arguments.line,
            encoding=arguments.encoding,
            labels=tuple(arguments.labels),
            token_pattern=arguments.token_pattern,
            on_error=arguments.on_error,
        ),
        own_files={"validation": arguments.validation, "test": arguments.test},
        data_dir=arguments.data_dir,
        split=split_config(arguments),
        overwrite=arguments.overwrite,
    )
    print(f"read {sum(report.sizes.values()):,} examples of {arguments.task}")
    say_skipped(report.skipped, "answers that do not stand in their context" if arguments.task == "qa" else "rows")
    if report.answers_moved:
        print(f"\n{report.answers_moved:,} answers were found elsewhere in their context than the files say")
    print()
    print_table(split_table(report.sizes, report.labels))
    for warning in report.warnings():
        print(f"\nwarning: {warning}", file=sys.stderr)
    say_written(arguments, report.folder, time.perf_counter() - begin)
    return 0


def _columns(given: list[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    for role, equals, column in pairs:
        if not role or not equals or not column:
            raise ValueError(
                f"--columns must be ROLE=COLUMN, such as text=sentence: got {role + equals!r}; files stand before it"
            )
    return {role: column for role, _, column in pairs}
