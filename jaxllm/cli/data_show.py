"""`jaxllm data show`: what is in a data set."""

import argparse
import shutil

from jaxllm.cli.table import print_table, split_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show a data set: splits, features, a few documents or examples. Without a name, list those there are."
    parser.add_argument("dataset", metavar="NAME", nargs="?", help="name, folder of a prepared TFDS set, or TFDS name")
    parser.add_argument("--split", help="split to show examples of (default: the first)")
    parser.add_argument("--num", type=int, default=3, metavar="N", help="examples to show (default: 3)")
    parser.add_argument("--text-feature", default="text", metavar="NAME", help="feature whose tokens to count (default: text)")
    parser.add_argument("--tokenizer", metavar="KIND|FOLDER", help="count tokens: bytes, characters, bpe, wordpiece, "
                        "unigram, or a folder with a tokenizer.json")  # fmt: skip
    parser.add_argument("--vocab-size", type=int, metavar="N", help="entries of a trained tokenizer (default: 4096)")
    parser.add_argument(
        "--data-dir", metavar="DIR", help="folder of data sets (default: $JAXLLM_DATA, else in the cache folder)"
    )


def show(arguments: argparse.Namespace) -> int:
    if arguments.num < 0:
        raise ValueError(f"--num must be 0 or more: got {arguments.num}")
    from jaxllm.data.show import feature_kinds, label_counts, shown_records
    from jaxllm.data.source import SHIPPED, datasets_dir, find_set, list_names

    if arguments.dataset is None:
        folder = datasets_dir(arguments.data_dir)
        names = sorted({*list_names(folder), SHIPPED})
        print(f"data sets in {folder} ({SHIPPED} ships with the package):")
        print("\n".join(f"  {name}" for name in names))
        return 0
    data_set = find_set(arguments.dataset, data_dir=arguments.data_dir)
    print(f"{data_set.folder}\nfeatures: {', '.join(feature_kinds(data_set))}\n")
    unit = "documents" if set(data_set.features) <= {"id", "text"} else "examples"
    rows = {"split": (unit,)} | {name: (f"{size:,}",) for name, size in data_set.sizes.items()}
    if arguments.tokenizer:
        columns = _token_columns(arguments)
        rows = {name: (*cells, *columns[name]) for name, cells in rows.items()}
    labels = label_counts(data_set)
    if arguments.tokenizer or not labels:
        print_table([(name, *cells) for name, cells in rows.items()])
    if labels:
        print_table(split_table(data_set.sizes, labels))
    split = data_set.check(arguments.split or next(iter(data_set.sizes)))
    width = max(40, shutil.get_terminal_size().columns)
    print(f"\nfirst {unit} of {split}:")
    for name, parts in shown_records(data_set, split, arguments.num):
        line = "  ".join(["  " + name, *parts])
        for each in [line] if len(parts) < 2 or len(line) <= width else ["  " + name, *("    " + part for part in parts)]:
            print(each if len(each) <= width else each[: width - 1] + "…")
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
