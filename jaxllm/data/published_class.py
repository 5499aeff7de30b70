"""Classes of published tokenizers: how each makes a tokenizer of its vocabulary, and what holds where the files are silent."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from jaxllm.data.sentencepiece_file import read_sentencepiece
from jaxllm.data.vocabulary import Split, add_tokens, byte_level_bpe, sentence_piece, word_piece

Build = Callable[[Path, Mapping[str, Any]], tokenizers.Tokenizer]
"""Makes a tokenizer of the vocabulary in a folder and the fields of tokenizer_config.json."""


@dataclass(frozen=True, kw_only=True)
class TokenizerClass:
    """What the code of a class adds to its files."""

    build: Build
    """From a folder that has no tokenizer.json."""
    special: Mapping[str, str] = field(default_factory=dict)
    """Tokens by role."""
    template: tuple[str, str] | None = None
    """Special tokens, by role, around a text and around two. None: bos and eos, as add_bos_token and add_eos_token of the files
    say."""
    add_bos: bool = False
    """What add_bos_token is where no file says it."""


def read_json(path: Path) -> dict[str, Any]:
    """The fields of a file."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); copy or download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold fields, {{...}}: got {type(content).__name__}; copy or download it again")
    return content


def read_merges(lines: Iterable[str], source: str | Path) -> list[tuple[str, str]]:
    """Pairs of tokens to merge, those merged first at the top, from lines with a space between the two."""
    merges = []
    for line in lines:
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise ValueError(f"a merge in {source} must be two tokens with a space between: got {line!r}; copy the file again")
        merges.append((left, right))
    return merges


def _byte_level(split: Split) -> Build:
    def build(folder: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
        names = ("vocab.json", "merges.txt") if (folder / "vocab.json").is_file() else ("encoder.json", "vocab.bpe")
        lines = (folder / names[1]).read_text("utf-8").split("\n")  # not splitlines: some tokens are line ends to it
        merges = read_merges((line for line in lines if line and not line.startswith("#version")), folder / names[1])
        return byte_level_bpe(read_json(folder / names[0]), merges, split=split, unicode="NFC" if split == "qwen2" else None)

    return build


def _bert(folder: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    lines = (folder / "vocab.txt").read_text("utf-8").removesuffix("\n").split("\n")
    return word_piece(
        {line: i for i, line in enumerate(lines)},
        lowercase=config.get("do_lower_case", True),
        strip_accents=config.get("strip_accents"),
        chinese_apart=config.get("tokenize_chinese_chars", True),
    )


def _t5(folder: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    core = _sentence_piece(folder, config)
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(config.get("extra_ids", 100)))]  # the last has the lowest id
    add_tokens(core, [AddedToken(name, lstrip=True, rstrip=True, normalized=False, special=True) for name in sentinels])
    return core


def _sentence_piece(folder: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    path = folder / "spiece.model"
    return sentence_piece(read_sentencepiece(path if path.is_file() else folder / "tokenizer.model"))


CLASSES = {
    "BertTokenizer": TokenizerClass(
        build=_bert,
        special={"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
        template=("cls $A sep", "cls $A sep $B:1 sep:1"),
    ),
    "GPT2Tokenizer": TokenizerClass(build=_byte_level("gpt2"), special=dict.fromkeys(("bos", "eos", "unk"), "<|endoftext|>")),
    "RobertaTokenizer": TokenizerClass(
        build=_byte_level("gpt2"),
        special={"bos": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"},
        template=("cls $A sep", "cls $A sep sep $B sep"),
    ),
    "Qwen2Tokenizer": TokenizerClass(build=_byte_level("qwen2"), special=dict.fromkeys(("eos", "pad", "unk"), "<|endoftext|>")),
    "T5Tokenizer": TokenizerClass(
        build=_t5, special={"eos": "</s>", "pad": "<pad>", "unk": "<unk>"}, template=("$A eos", "$A eos $B eos")
    ),
    "LlamaTokenizer": TokenizerClass(
        build=_sentence_piece, special={"bos": "<s>", "eos": "</s>", "unk": "<unk>"}, add_bos=True
    ),
    "GemmaTokenizer": TokenizerClass(
        build=_sentence_piece,
        special={"bos": "<bos>", "eos": "<eos>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"},
        add_bos=True,
    ),
}
"""By the name that tokenizer_config.json gives, without "Fast"."""
SAME_CLASS = {
    "DistilBertTokenizer": "BertTokenizer",
    "ElectraTokenizer": "BertTokenizer",
    "BartTokenizer": "RobertaTokenizer",
    "CodeGenTokenizer": "GPT2Tokenizer",
}
"""Classes that do what another does."""
CLASS_OF_MODEL = {
    **dict.fromkeys(("bert", "distilbert", "electra"), "BertTokenizer"),
    **dict.fromkeys(("gpt2", "phi"), "GPT2Tokenizer"),
    **dict.fromkeys(("roberta", "bart"), "RobertaTokenizer"),
    **dict.fromkeys(("qwen2", "qwen3", "qwen3_moe"), "Qwen2Tokenizer"),
    **dict.fromkeys(("llama", "mistral", "mixtral", "phi3"), "LlamaTokenizer"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text"), "GemmaTokenizer"),
    "t5": "T5Tokenizer",
}
"""By the model_type of config.json."""
CLASS_OF_FILES = {
    ("vocab.txt",): "BertTokenizer",
    ("vocab.json", "merges.txt"): "GPT2Tokenizer",
    ("encoder.json", "vocab.bpe"): "GPT2Tokenizer",
    ("spiece.model",): "T5Tokenizer",
    ("tokenizer.model",): "LlamaTokenizer",
}
"""By the files of the vocabulary, where nothing names a class."""
