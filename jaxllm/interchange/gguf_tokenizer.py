"""The tokenizer in a GGUF file: its vocabulary, special tokens and chat template.

tokenizer.ggml.model   what it is
llama                  SentencePiece's merges by score
gpt2                   byte-level BPE; tokenizer.ggml.pre names how text is cut into words first
bert                   WordPiece; a piece that begins a word has a mark, where BERT marks those inside a word
"""

from typing import Any

import tokenizers
from tokenizers import AddedToken

from jaxllm.data.published_class import read_merges
from jaxllm.data.subword import SubwordTokenizer
from jaxllm.data.vocabulary import (
    CONTROL,
    NORMAL,
    SPACE,
    USER_DEFINED,
    Pieces,
    Split,
    add_tokens,
    byte_level_bpe,
    sentence_piece,
    set_ends,
    set_template,
    word_piece,
)
from jaxllm.interchange.gguf_file import GgufFile

_KINDS = ("llama", "gpt2", "bert")
_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "mpt", "jina-es", "jina-de", "roberta-bpe", "gigachat"), "gpt2"),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), "digits"),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "dbrx", "smaug-bpe", "falcon3", "pixtral"), "llama3"),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), "qwen2"),
}
"""By the values of tokenizer.ggml.pre."""
_ID_KEYS = {
    "bos": ("bos",),
    "eos": ("eos",),
    "pad": ("padding",),
    "unk": ("unknown",),
    "cls": ("cls",),
    "sep": ("seperator", "separator"),  # the format has the typing error
    "mask": ("mask",),
}


def read_gguf_tokenizer(file: GgufFile) -> SubwordTokenizer:
    """The tokenizer of a model.

    Raises:
      ValueError: the file has none, or one of a kind that is not known.
    """
    kind = _field(file, "model", None)
    if kind not in _KINDS:
        raise ValueError(
            f"tokenizer.ggml.model must be one of {', '.join(_KINDS)}: {file.path} has {kind!r}; put the tokenizer files of "
            "the model in a folder and load that"
        )
    tokens: list[str] = _field(file, "tokens")
    kinds = [int(i) for i in _field(file, "token_type", [NORMAL] * len(tokens))]
    if len(kinds) != len(tokens):
        raise ValueError(f"{file.path} is damaged: it has {len(tokens)} tokens and {len(kinds)} types of tokens; copy it again")
    if kind == "llama":
        core = _sentence_piece(file, tokens, kinds)
    elif kind == "gpt2":
        core = _byte_level(file, tokens)
    else:
        core = _word_piece(tokens)
    if kind != "llama":
        marks = [(token, mark) for token, mark in zip(tokens, kinds, strict=True) if mark in (CONTROL, USER_DEFINED)]
        add_tokens(core, [AddedToken(token, normalized=False, special=mark == CONTROL) for token, mark in marks])
    special = _special_tokens(file, tokens)
    _choose_template(file, core, kind, special)
    return SubwordTokenizer(core, special, chat_template=file.metadata.get("tokenizer.chat_template"))


def _sentence_piece(file: GgufFile, tokens: list[str], kinds: list[int]) -> tokenizers.Tokenizer:
    pieces = Pieces(
        pieces=tokens,
        scores=_field(file, "scores").tolist(),
        kinds=kinds,
        algorithm="bpe",
        unk_id=_field(file, "unknown_token_id", 0),
        prefix=_field(file, "add_space_prefix", True),
    )
    return sentence_piece(pieces)


def _byte_level(file: GgufFile, tokens: list[str]) -> tokenizers.Tokenizer:
    name = _field(file, "pre", None)
    if name not in _SPLITS:
        raise ValueError(
            f"tokenizer.ggml.pre, how text is cut into words, must be one of {', '.join(sorted(_SPLITS))}: {file.path} has "
            f"{name!r}; put the tokenizer files of the model in a folder and load that"
        )
    merges = read_merges(_field(file, "merges"), file.path)
    split = _SPLITS[name]
    vocab = {token: i for i, token in enumerate(tokens)}
    return byte_level_bpe(vocab, merges, split=split, unicode="NFC" if split == "qwen2" else None)


def _word_piece(tokens: list[str]) -> tokenizers.Tokenizer:
    """The file does not say whether text becomes lower case: it does, unless there is a piece for a capital letter."""
    vocab = {}
    for i, token in enumerate(tokens):
        if token.startswith(SPACE):
            token = token[1:]
        elif not (token.startswith("[") and token.endswith("]")):
            token = "##" + token
        vocab[token] = i
    return word_piece(vocab, lowercase=not any(letter in vocab for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"))


def _special_tokens(file: GgufFile, tokens: list[str]) -> dict[str, str]:
    special = {}
    for role, names in _ID_KEYS.items():
        for name in names:
            token_id = _field(file, f"{name}_token_id", None)
            if token_id is not None and token_id >= len(tokens):
                raise ValueError(
                    f"{file.path} is damaged: its {role} token is {token_id} of {len(tokens)}; copy or download it again"
                )
            if token_id is not None:
                special[role] = tokens[token_id].removeprefix(SPACE)
    return special


def _choose_template(file: GgufFile, core: tokenizers.Tokenizer, kind: str, special: dict[str, str]) -> None:
    """What stands around a text where the file does not say it: nothing for gpt2, bos for llama, cls and sep for bert."""
    if kind == "bert":
        return set_template(core, "cls $A sep", "cls $A sep $B:1 sep:1", special)
    begin = _field(file, "add_bos_token", kind == "llama" or _SPLITS.get(_field(file, "pre", "")) == "llama3")
    set_ends(core, special, begin=begin, end=_field(file, "add_eos_token", False))


_REQUIRED: Any = object()


def _field(file: GgufFile, name: str, default: Any = _REQUIRED) -> Any:
    value = file.metadata.get(f"tokenizer.ggml.{name}", default)
    if value is _REQUIRED:
        raise ValueError(f"{file.path} has no tokenizer.ggml.{name}, which its tokenizer needs; take another copy of the model")
    return value
