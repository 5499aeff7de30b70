"""`jaxllm data build` makes a data set from files, `jaxllm data show` looks at one."""

import argparse
import shutil
import sys
import time
from typing import TYPE_CHECKING

from jaxllm.cli.parser import Parser
from jaxllm.hardware.counted import counted

if TYPE_CHECKING:
    from jaxllm.data.build import BuildReport

EXAMPLES = """examples:
  jaxllm data build stories stories.txt --documents blank-line
  jaxllm data build books books/ --encoding latin-1 --exact-duplicates --min-chars 200
  jaxllm data build poems poems/ --column paragraphs
  jaxllm data build reviews train.tsv --column sentence --label label --validation dev.tsv --test test.tsv
  jaxllm data build captions train.de.gz train.en.gz --pair de en --test test.de.gz test.en.gz
  jaxllm data build cifar10 train.tar.gz --images --test test.tar.gz
  jaxllm data show stories --num 5 --tokenizer bpe --vocab-size 2000
"""


def run(argv: list[str]) -> int:
    """Runs `jaxllm data ...`."""
    arguments = _parser().parse_args(argv)
    return _build(arguments) if arguments.action == "build" else _show(arguments)


def _parser() -> Parser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="jaxllm data",
        description="Data sets are TFDS folders of ArrayRecord files; a recipe names one as its data.dataset.",
        epilog=EXAMPLES,
        formatter_class=plain,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="build|show")
    _add_build(actions.add_parser("build", help="make a data set from files", epilog=EXAMPLES, formatter_class=plain))
    _add_show(actions.add_parser("show", help="look at a data set, or list those there are"))
    return parser


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a data set from text, JSONL, JSON, CSV, TSV or Parquet files (text kinds also gzipped), or folders of them; with "
        "--images from folders or archives of class folders of JPEG and PNG files."
    )
    parser.add_argument("name", metavar="NAME", help="what to call it: small letters, digits, _")
    parser.add_argument("sources", metavar="SOURCE", nargs="*", help="files and folders to train on")
    add = parser.add_argument_group("reading").add_argument
    add("--documents", choices=["file", "line", "blank-line", "article"], default="file",
        help="what a document is in a text file (default: file; article: WikiText)")  # fmt: skip
    add("--separator", metavar="LINE", help="a document ends at each line equal to this, such as '<|endoftext|>'")
    add("--encoding", default="utf-8",
        help="encoding of the files (default: utf-8); of several (utf-8,latin-1) the first that fits a file")  # fmt: skip
    add("--column", help="column or JSON key that holds the text (default: text); its number without a header")
    add("--label", metavar="COLUMN", help="column or JSON key that holds a class; it becomes the feature `label`")
    add("--pair", nargs=2, metavar=("FIRST", "SECOND"), help="names of the two texts of each pair: two columns or JSON keys, "
        "or in text files, which come two by two, line n of one file and of the other")  # fmt: skip
    add("--images", action="store_true", help="images; the folder that a file lies in is its class")
    add("--no-header", action="store_true", help="CSV and TSV files have no line of column names")
    add("--on-error", choices=["stop", "skip"], default="stop",
        help="at a record that cannot be read: stop with its place (default), or skip and count it")  # fmt: skip
    add = parser.add_argument_group("splits").add_argument
    add("--train", metavar="FILE", nargs="+", default=[], help="more files to train on, the same as SOURCE")
    add("--validation", metavar="FILE", nargs="+", default=[], help="files of the validation split")
    add("--test", metavar="FILE", nargs="+", default=[], help="files of the test split")
    add("--validation-fraction", type=float, metavar="X",
        help="share of the SOURCE documents for validation (default: 0.05, or 0 with --validation or --test)")  # fmt: skip
    add("--test-fraction", type=float, metavar="X", help="share for test (default: the same)")
    add("--split-by", choices=["documents", "characters"], default="documents",
        help="whole documents at random (default), or the end of each document's characters")  # fmt: skip
    add("--seed", type=int, default=0, help="chooses the documents of the splits (default: 0)")
    add = parser.add_argument_group("cleaning, in this order").add_argument
    add("--control-characters", action="store_true", help="take out control and zero-width characters")
    add("--repeated-lines", action="store_true", help="take out lines that stood before in the same document")
    add("--min-chars", type=int, default=1, metavar="N", help="drop documents with fewer characters")
    add("--language", nargs="+", default=[], metavar="CODE", help="keep documents in these languages only, such as en zh")
    add("--exact-duplicates", action="store_true", help="drop documents that stood before")
    add("--near-duplicates", type=float, nargs="?", const=0.8, metavar="X",
        help="drop documents at least this similar to one before (default: 0.8)")  # fmt: skip
    add = parser.add_argument_group("where").add_argument
    add("--data-dir", metavar="DIR", help="folder of data sets (default: $JAXLLM_DATA, else in the cache folder)")
    add("--overwrite", action="store_true", help="replace a data set of this name")


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show a data set: splits, features, a few documents. Without a name, list those there are."
    parser.add_argument("dataset", metavar="NAME", nargs="?", help="name, folder of a prepared TFDS set, or TFDS name")
    parser.add_argument("--split", help="split to show documents of (default: the first)")
    parser.add_argument("--num", type=int, default=3, metavar="N", help="documents to show (default: 3)")
    parser.add_argument("--text-feature", default="text", metavar="NAME", help="feature whose tokens to count (default: text)")
    parser.add_argument("--tokenizer", metavar="KIND|FOLDER", help="count tokens: bytes, characters, bpe, wordpiece, "
                        "unigram, or a folder with a tokenizer.json")  # fmt: skip
    parser.add_argument("--vocab-size", type=int, metavar="N", help="entries of a trained tokenizer (default: 4096)")
    parser.add_argument(
        "--data-dir", metavar="DIR", help="folder of data sets (default: $JAXLLM_DATA, else in the cache folder)"
    )


def _build(arguments: argparse.Namespace) -> int:
    sources = arguments.sources + arguments.train
    if not sources:
        raise ValueError("expected files or folders to build from: got none; jaxllm data build NAME FILE ...")
    if arguments.images:
        return _build_images(arguments, sources)
    if arguments.pair and (arguments.label or arguments.column):
        raise ValueError("--pair names both texts: it does not go with --column or --label")
    from jaxllm.data.build import build_text_set
    from jaxllm.data.clean import CleanConfig
    from jaxllm.data.readers import ReadConfig
    from jaxllm.data.splits import SplitConfig

    begin = time.perf_counter()
    report = build_text_set(
        arguments.name,
        sources,
        own_files={"validation": arguments.validation, "test": arguments.test},
        data_dir=arguments.data_dir,
        read=ReadConfig(
            documents="separator" if arguments.separator and arguments.documents == "file" else arguments.documents,
            separator=arguments.separator,
            encoding=arguments.encoding,
            column=arguments.pair[0] if arguments.pair else arguments.column,
            second=arguments.pair[1] if arguments.pair else arguments.label,
            header=not arguments.no_header,
            on_error=arguments.on_error,
        ),
        clean=CleanConfig(
            control_characters=arguments.control_characters,
            repeated_lines=arguments.repeated_lines,
            min_chars=arguments.min_chars,
            languages=tuple(arguments.language),
            exact_duplicates=arguments.exact_duplicates,
            near_duplicates=arguments.near_duplicates,
        ),
        split=SplitConfig(
            validation_fraction=arguments.validation_fraction,
            test_fraction=arguments.test_fraction,
            by=arguments.split_by,
            seed=arguments.seed,
        ),
        labelled=arguments.label is not None,
        overwrite=arguments.overwrite,
    )
    counts = report.cleaning
    print(f"read {counted(counts.documents_read, 'document')}, kept {counts.documents_kept:,}\n")
    _print_table(counts.table())
    _say_built(arguments, report, ("documents", "characters"), time.perf_counter() - begin)
    return 0


def _build_images(arguments: argparse.Namespace, sources: list[str]) -> int:
    from jaxllm.data.build_images import build_image_set
    from jaxllm.data.splits import SplitConfig

    begin = time.perf_counter()
    report = build_image_set(
        arguments.name,
        sources,
        own_files={"validation": arguments.validation, "test": arguments.test},
        data_dir=arguments.data_dir,
        split=SplitConfig(
            validation_fraction=arguments.validation_fraction,
            test_fraction=arguments.test_fraction,
            by=arguments.split_by,
            seed=arguments.seed,
        ),
        on_error=arguments.on_error,
        overwrite=arguments.overwrite,
    )
    print(f"read {counted(report.cleaning.documents_kept, 'image')}")
    _say_built(arguments, report, ("images", "bytes"), time.perf_counter() - begin)
    return 0


def _say_built(arguments: argparse.Namespace, report: "BuildReport", units: tuple[str, str], seconds: float) -> None:
    if report.skipped.count:
        print(f"\nskipped {counted(report.skipped.count, 'record')} that could not be read, the first of them:")
        for message in report.skipped.examples:
            print(f"  {message}")
    print()
    splits = [(name, f"{count:,}", f"{size:,}") for name, (count, size) in report.splits.items()]
    _print_table([("split", *units), *splits])
    if units[1] == "characters" and not (arguments.pair or arguments.label):
        _warn_of_shares(report)
    print(f"\nwritten to {report.folder} in {seconds:.1f} s")
    named = arguments.name if arguments.data_dir is None else f"{arguments.name} --data-dir {arguments.data_dir}"
    print(f"look at it:  jaxllm data show {named}")


def _warn_of_shares(report: "BuildReport") -> None:
    """Few or very different documents make splits far from the shares asked for, since each goes whole to one of them."""
    total = sum(size for _, size in report.splits.values())
    shares = {name: (report.splits[name][1] / total, asked) for name, asked in report.fractions.items()}
    far = [f"{name} has {got:.0%} (asked: {asked:.0%})" for name, (got, asked) in shares.items() if not 0.5 <= got / asked <= 2]
    if far:
        print(
            f"\nwarning: of all characters {' and '.join(far)}, since whole documents are drawn; "
            "--split-by characters cuts each document instead",
            file=sys.stderr,
        )


def _show(arguments: argparse.Namespace) -> int:
    if arguments.num < 0:
        raise ValueError(f"--num must be 0 or more: got {arguments.num}")
    from jaxllm.data.show import feature_kinds, shown_records
    from jaxllm.data.source import SHIPPED, datasets_dir, find_set, list_names

    if arguments.dataset is None:
        folder = datasets_dir(arguments.data_dir)
        names = sorted({*list_names(folder), SHIPPED})
        print(f"data sets in {folder} ({SHIPPED} ships with the package):")
        print("\n".join(f"  {name}" for name in names))
        return 0
    data_set = find_set(arguments.dataset, data_dir=arguments.data_dir)
    print(f"{data_set.folder}\nfeatures: {', '.join(feature_kinds(data_set))}\n")
    rows = {"split": ("documents",)} | {name: (f"{size:,}",) for name, size in data_set.sizes.items()}
    if arguments.tokenizer:
        columns = _token_columns(arguments)
        rows = {name: (*cells, *columns[name]) for name, cells in rows.items()}
    _print_table([(name, *cells) for name, cells in rows.items()])
    split = data_set.check(arguments.split or next(iter(data_set.sizes)))
    width = max(40, shutil.get_terminal_size().columns)
    print(f"\nfirst documents of {split}:")
    for line in shown_records(data_set, split, arguments.num):
        print("  " + (line if len(line) <= width - 2 else line[: width - 3] + "…"))
    return 0


def _token_columns(arguments: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Tokens, and characters a token, of each split."""
    from jaxllm.data import DataConfig, TokenizerConfig, find_text_set, open_data
    from jaxllm.data.config import TRAINED_KINDS, TokenizerKind
    from jaxllm.data.tokens import tokenize_split

    kind = arguments.tokenizer
    size = arguments.vocab_size
    if kind not in TokenizerKind.__args__:
        tokenizer = TokenizerConfig(kind="pretrained", path=kind)
    else:
        tokenizer = TokenizerConfig(kind=kind, vocab_size=size or 4096 if kind in TRAINED_KINDS else size)
    text_set = find_text_set(arguments.dataset, data_dir=arguments.data_dir, text_feature=arguments.text_feature)
    train, *others = text_set.sizes
    config = DataConfig(
        dataset=arguments.dataset,
        seq_len=1,
        data_dir=arguments.data_dir,
        text_feature=arguments.text_feature,
        train_split="train" if "train" in text_set.sizes else train,
        validation_split=others[0] if others else None,
        test_split=others[1] if len(others) > 1 else None,
        tokenizer=tokenizer,
    )
    data = open_data(config, seed=0)
    columns = {"split": ("tokens", "characters a token")}
    for split in text_set.sizes:
        documents = text_set.open(split)
        tokens = tokenize_split(documents, data.tokenizer).num_tokens
        columns[split] = (f"{tokens:,}", f"{sum(map(len, documents)) / max(1, tokens):.2f}")
    return columns


def _print_table(rows: list[tuple[str, ...]]) -> None:
    """First column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        print("  " + "   ".join(cells))
