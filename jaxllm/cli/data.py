"""`jaxllm data build` makes a data set from files, `jaxllm data show` looks at one."""

import argparse

from jaxllm.cli import data_build, data_show, data_task
from jaxllm.cli.parser import Parser

EXAMPLES = """examples:
  jaxllm data build stories stories.txt --documents blank-line
  jaxllm data build books books/ --encoding latin-1 --exact-duplicates --min-chars 200
  jaxllm data build poems poems/ --column paragraphs
  jaxllm data build reviews train.tsv --column sentence --label label --validation dev.tsv --test test.tsv
  jaxllm data build captions train.de.gz train.en.gz --pair de en --test test.de.gz test.en.gz
  jaxllm data build cifar10 train.tar.gz --images --test test.tar.gz
  jaxllm data build reviews train.tsv --task classification --columns text=sentence label=label --test test.tsv
  jaxllm data build names train.conll --task tokens --validation dev.conll --test test.conll
  jaxllm data build chats chats.jsonl --task chat
  jaxllm data show stories --num 5 --tokenizer bpe --vocab-size 2000
"""


def run(argv: list[str]) -> int:
    """Runs `jaxllm data ...`."""
    arguments = _parser().parse_args(argv)
    if arguments.action == "show":
        return data_show.show(arguments)
    data_task.check_options(arguments)
    return (data_task if arguments.task else data_build).build(arguments)


def _parser() -> Parser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="jaxllm data",
        description="Data sets are TFDS folders of ArrayRecord files; a recipe names one as its data.dataset.",
        epilog=EXAMPLES,
        formatter_class=plain,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="build|show")
    build = actions.add_parser("build", help="make a data set from files", epilog=EXAMPLES, formatter_class=plain)
    data_build.add_arguments(build)
    data_task.add_arguments(build)
    data_show.add_arguments(actions.add_parser("show", help="look at a data set, or list those there are"))
    return parser
