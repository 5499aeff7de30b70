"""`jaxllm data build`: a data set from files."""

import argparse
import sys
import time
from typing import TYPE_CHECKING

from jaxllm.cli.table import print_table
from jaxllm.hardware.counted import counted

if TYPE_CHECKING:
    from pathlib import Path

    from jaxllm.data.build import BuildReport
    from jaxllm.data.readers import Skipped
    from jaxllm.data.splits import SplitConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a data set from text, JSONL, JSON, CSV, TSV or Parquet files (text kinds also gzipped), or folders of them; with "
        "--images from folders or archives of class folders of JPEG and PNG files; with --task the checked examples of a task."
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


def sources_of(arguments: argparse.Namespace) -> list[str]:
    sources = arguments.sources + arguments.train
    if not sources:
        raise ValueError("expected files or folders to build from: got none; jaxllm data build NAME FILE ...")
    return sources


def split_config(arguments: argparse.Namespace) -> "SplitConfig":
    from jaxllm.data.splits import SplitConfig

    return SplitConfig(
        validation_fraction=arguments.validation_fraction,
        test_fraction=arguments.test_fraction,
        by=arguments.split_by,
        seed=arguments.seed,
    )


def build(arguments: argparse.Namespace) -> int:
    sources = sources_of(arguments)
    if arguments.images:
        return _build_images(arguments, sources)
    if arguments.pair and (arguments.label or arguments.column):
        raise ValueError("--pair names both texts: it does not go with --column or --label")
    from jaxllm.data.build import build_text_set
    from jaxllm.data.clean import CleanConfig
    from jaxllm.data.readers import ReadConfig

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
        split=split_config(arguments),
        labelled=arguments.label is not None,
        overwrite=arguments.overwrite,
    )
    counts = report.cleaning
    print(f"read {counted(counts.documents_read, 'document')}, kept {counts.documents_kept:,}\n")
    print_table(counts.table())
    _say_built(arguments, report, ("documents", "characters"), time.perf_counter() - begin)
    return 0


def _build_images(arguments: argparse.Namespace, sources: list[str]) -> int:
    from jaxllm.data.build_images import build_image_set

    begin = time.perf_counter()
    report = build_image_set(
        arguments.name,
        sources,
        own_files={"validation": arguments.validation, "test": arguments.test},
        data_dir=arguments.data_dir,
        split=split_config(arguments),
        on_error=arguments.on_error,
        overwrite=arguments.overwrite,
    )
    print(f"read {counted(report.cleaning.documents_kept, 'image')}")
    _say_built(arguments, report, ("images", "bytes"), time.perf_counter() - begin)
    return 0


def _say_built(arguments: argparse.Namespace, report: "BuildReport", units: tuple[str, str], seconds: float) -> None:
    say_skipped(report.skipped)
    print()
    splits = [(name, f"{count:,}", f"{size:,}") for name, (count, size) in report.splits.items()]
    print_table([("split", *units), *splits])
    if units[1] == "characters" and not (arguments.pair or arguments.label):
        _warn_of_shares(report)
    say_written(arguments, report.folder, seconds)


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


def say_skipped(skipped: "Skipped", what: str = "records that could not be read") -> None:
    if skipped.count:
        print(f"\nskipped {skipped.count:,} {what}, the first of them:")
        for message in skipped.examples:
            print(f"  {message}")


def say_written(arguments: argparse.Namespace, folder: "Path", seconds: float) -> None:
    print(f"\nwritten to {folder} in {seconds:.1f} s")
    named = arguments.name if arguments.data_dir is None else f"{arguments.name} --data-dir {arguments.data_dir}"
    print(f"look at it:  jaxllm data show {named}")
