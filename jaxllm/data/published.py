"""Tokenizers published with a model, read from its folder.

`tokenizer.json` says everything but which special token is for what: tokenizer_config.json and special_tokens_map.json do.
Older folders have a vocabulary only, and a class whose code says the rest (`published_class`):

    files                                classes, and those that do the same
    vocab.txt                            BERT
    vocab.json, merges.txt               GPT-2, RoBERTa and BART, Qwen2
    encoder.json, vocab.bpe              GPT-2 as its authors published it
    spiece.model or tokenizer.model      T5, Llama, Gemma
    source.spm, target.spm, vocab.json   Marian (`marian`)

The class is the one that tokenizer_config.json names, or that belongs to the model_type of config.json, or the first of the
row.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from jaxllm.data.marian import MarianTokenizer
from jaxllm.data.published_class import CLASS_OF_FILES, CLASS_OF_MODEL, CLASSES, SAME_CLASS, TokenizerClass, read_json
from jaxllm.data.subword import ROLES, SubwordTokenizer
from jaxllm.data.vocabulary import add_tokens, set_ends, set_template

_USUAL_NAMES = {
    "eos": ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>"),
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
    "mask": ("[MASK]", "<mask>"),
}
"""Taken where no file names the token, if it is a special entry of the vocabulary."""
_GENERIC = ("PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend")
"""Classes that say nothing of themselves."""


def load_published(folder: Path) -> SubwordTokenizer | MarianTokenizer:
    """The tokenizer in a folder.

    Raises:
      FileNotFoundError: the folder holds no tokenizer.
      ValueError: files that are damaged, contradict each other, or belong to a class that is not known.
    """
    config = _read_if_there(folder / "tokenizer_config.json")
    name = _class_name(folder, config)
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            core = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises bare Exception
            raise ValueError(f"{path} is not a tokenizer that the tokenizers package reads: {error}") from error
        return _complete(folder, config, core, CLASSES.get(name or ""))
    if (folder / "source.spm").is_file():
        return MarianTokenizer.load(folder)
    by_files = _class_of_files(folder)
    name = name or by_files
    if name not in CLASSES:
        raise ValueError(
            f"without a tokenizer.json a tokenizer must be a {', '.join(CLASSES)} or MarianTokenizer: {folder} has one for "
            f"{name}; write a tokenizer.json with transformers, AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    try:
        core = CLASSES[name].build(folder, config)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"a {name} needs {error.filename}: there is no such file; copy it, too") from error
    return _complete(folder, config, core, CLASSES[name])


def _class_name(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The class, or the kind of model, that the folder names; None where it names none."""
    model = _read_if_there(folder / "config.json")
    named = config.get("tokenizer_class") or model.get("tokenizer_class")
    if named is None or named in _GENERIC:
        kind = model.get("model_type")
        return CLASS_OF_MODEL.get(kind, kind) if kind else None
    name = named.removesuffix("Fast")
    return SAME_CLASS.get(name, name)


def _class_of_files(folder: Path) -> str:
    for files, name in CLASS_OF_FILES.items():
        if all((folder / file).is_file() for file in files):
            return name
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    wanted = ", ".join(" with ".join(files) for files in [("tokenizer.json",), *CLASS_OF_FILES, ("source.spm", "target.spm")])
    raise FileNotFoundError(
        f"expected a tokenizer in {folder}, one of {wanted}: it holds {there}; copy the tokenizer's files of the model"
    )


def _complete(
    folder: Path, config: Mapping[str, Any], core: tokenizers.Tokenizer, known: TokenizerClass | None
) -> SubwordTokenizer:
    """With what stands beside the vocabulary: added and special tokens, the template around a text, the chat template."""
    _add_listed_tokens(folder, config, core)
    special = _special_tokens(folder, config, core, known)
    _choose_template(folder, config, core, known, special)
    max_len = config.get("model_max_length")
    has_limit = isinstance(max_len, int) and max_len < 10**9  # transformers writes 10^30 for "not known"
    return SubwordTokenizer(core, special, chat_template=_chat_template(folder, config), max_len=max_len if has_limit else None)


def _add_listed_tokens(folder: Path, config: Mapping[str, Any], core: tokenizers.Tokenizer) -> None:
    """Tokens that were added to a vocabulary and are listed beside it, with their ids."""
    listed: dict[int, Any] = {i: token for token, i in _read_if_there(folder / "added_tokens.json").items()}
    listed |= {int(i): token for i, token in config.get("added_tokens_decoder", {}).items()}
    recognized = core.get_added_tokens_decoder()
    for i, entry in sorted(listed.items()):
        token = _token(entry, special=False)
        if token is None or (i in recognized and recognized[i].content == token.content):
            continue
        add_tokens(core, [token])
        if core.token_to_id(token.content) != i:
            raise ValueError(
                f"the files in {folder} must agree on the ids of added tokens: {token.content!r} is listed with {i}, its "
                f"place in the vocabulary is {core.token_to_id(token.content)}; take all files from one version of the model"
            )


def _special_tokens(
    folder: Path, config: Mapping[str, Any], core: tokenizers.Tokenizer, known: TokenizerClass | None
) -> dict[str, str]:
    """Tokens by role: usual names, over them those of the class, over them those that the files name."""
    recognized = {token.content for token in core.get_added_tokens_decoder().values() if token.special}
    usual = {role: [name for name in names if name in recognized] for role, names in _USUAL_NAMES.items()}
    tokens: dict[str, AddedToken] = {role: _special(names[0]) for role, names in usual.items() if names}
    for role, name in (known.special if known else {}).items():
        if core.token_to_id(name) is not None:
            tokens[role] = _special(name)
    for named in (_read_if_there(folder / "special_tokens_map.json"), config):
        for role in ROLES:
            if f"{role}_token" in named:
                tokens.pop(role, None)
                if token := _token(named[f"{role}_token"], special=True):
                    tokens[role] = token
    missing = [token for token in tokens.values() if token.content not in recognized]
    add_tokens(core, [token for token in missing if core.token_to_id(token.content) is not None])
    return {role: token.content for role, token in tokens.items()}


def _choose_template(
    folder: Path,
    config: Mapping[str, Any],
    core: tokenizers.Tokenizer,
    known: TokenizerClass | None,
    special: Mapping[str, str],
) -> None:
    """That of tokenizer.json, or of the class; add_bos_token and add_eos_token rule over both where the files have them."""
    if known is not None and known.template is not None:
        if core.post_processor is None:
            if missing := sorted({word.partition(":")[0] for word in known.template[1].split()} - {"$A", "$B"} - set(special)):
                names = ", ".join(known.special[role] for role in missing)
                raise ValueError(
                    f"the vocabulary of the tokenizer in {folder} must have {names}: it has not; copy its files again"
                )
            set_template(core, *known.template, special)
        return
    silent = "add_bos_token" not in config and "add_eos_token" not in config
    if silent and core.post_processor is not None:
        return
    default = known is not None and known.add_bos
    begin = bool(config.get("add_bos_token", default and silent))
    set_ends(core, special, begin=begin, end=bool(config.get("add_eos_token")))


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text("utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        return {entry["name"]: entry["template"] for entry in template}.get("default")
    return template


def _token(value: object, *, special: bool) -> AddedToken | None:
    """A token in the published files is a string, or an object with a `content`."""
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        options = {name: value[name] for name in ("single_word", "lstrip", "rstrip") if name in value}
        normalized, special = bool(value.get("normalized", False)), bool(value.get("special", special))
        return AddedToken(value["content"], normalized=normalized, special=special, **options)
    return AddedToken(value, normalized=False, special=special) if isinstance(value, str) else None


def _special(name: str) -> AddedToken:
    return AddedToken(name, lstrip=name == "<mask>", normalized=False, special=True)  # RoBERTa's takes the space before it


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
