"""What a published folder says of how texts begin and end: generation_config.json, and where it is missing config.json."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxllm.interchange.config_reader import read_fields

FILE = "generation_config.json"


@dataclass(frozen=True, kw_only=True)
class GenerationDefaults:
    """Tokens with a meaning in generation. Settings of sampling are the caller's choice and not read."""

    eos_ids: tuple[int, ...] = ()
    """Any of them ends a text."""
    bos_id: int | None = None
    """Begins a text, where a tokenizer does not say it."""
    pad_id: int | None = None
    """Stands behind the end of a text, where a tokenizer does not say it."""
    suppress: tuple[int, ...] = ()
    """Never to be written."""
    begin_suppress: tuple[int, ...] = ()
    """Not to be written first; where the first token is forced, not second."""
    forced_bos: int | None = None
    """The first token that is written behind a prompt of one token, as an encoder-decoder always has it."""
    forced_eos: tuple[int, ...] = ()
    """One of them is the last token of a text that comes to its greatest length."""


def read_generation(folder: Path) -> GenerationDefaults:
    """The defaults of a Hugging Face folder; empty where nothing is said.

    Raises:
      ValueError: a file that is not JSON, or says something else than tokens of the model where tokens belong.
    """
    return generation_defaults(*_read(folder))


def read_start_id(folder: Path) -> int | None:
    """The token that transformers has a decoder begin with: as generation_config.json says, else config.json; None where
    neither does. Where a file has no such token, the one that begins a text is taken."""
    config, generation = _read(folder)
    for fields in (generation or {}, config):
        for name in ("decoder_start_token_id", "bos_token_id"):
            if fields.get(name) is not None:
                return fields[name]
    return None


def generation_defaults(config: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> GenerationDefaults:
    """The defaults among the fields of config.json and, where there is one, generation_config.json.

    As in transformers, what is forced or suppressed is told by the second alone where there is one, and what a published
    class has as its default counts for nothing: it is in the files. Tokens that end, begin and pad a text are taken from the
    first where the second does not tell them.
    """
    said = {name: value for name, value in (generation or {}).items() if value is not None}
    tokens, rules = {**config, **said}, config if generation is None else said
    ends = _several(tokens.get("eos_token_id"))
    bad_words = [tuple(words) for words in rules.get("bad_words_ids") or ()]
    if several := [words for words in bad_words if len(words) > 1]:
        warnings.warn(f"bad_words_ids of several tokens are not applied: {several[0]}; leave them out by hand", stacklevel=3)
    bad = [words[0] for words in bad_words if len(words) == 1 and words[0] not in ends]
    forced_bos = rules.get("forced_bos_token_id")
    if generation is None and config.get("force_bos_token_to_be_generated"):  # as the first files of BART have it
        forced_bos = config.get("bos_token_id")
    return GenerationDefaults(
        eos_ids=ends,
        bos_id=tokens.get("bos_token_id"),
        pad_id=tokens.get("pad_token_id"),
        suppress=tuple(dict.fromkeys([*(rules.get("suppress_tokens") or ()), *bad])),
        begin_suppress=tuple(rules.get("begin_suppress_tokens") or ()),
        forced_bos=forced_bos,
        forced_eos=_several(rules.get("forced_eos_token_id")),
    )


def generation_fields(defaults: GenerationDefaults) -> dict[str, Any]:
    """The fields of generation_config.json for these defaults; none for what they do not say.

    Suppressed tokens are bad words, or suppress_tokens where one of them ends a text, or might: transformers leaves ends out
    of bad words. It refuses suppress_tokens with all that is forced somewhere, so these stay bad words; that a forced end is
    suppressed elsewhere cannot be said.
    """
    ends = set(defaults.suppress) & set(defaults.eos_ids) or not defaults.eos_ids
    barred = set(defaults.suppress) if ends else set()
    for forced in ({defaults.forced_bos}, set(defaults.forced_eos)):
        barred -= forced if forced <= barred else set()
    fields = {
        "bos_token_id": defaults.bos_id,
        "eos_token_id": _one_or_several(defaults.eos_ids),
        "pad_token_id": defaults.pad_id,
        "forced_bos_token_id": defaults.forced_bos,
        "forced_eos_token_id": _one_or_several(defaults.forced_eos),
        "begin_suppress_tokens": list(defaults.begin_suppress) or None,
        "suppress_tokens": [token for token in defaults.suppress if token in barred] or None,
        "bad_words_ids": [[token] for token in defaults.suppress if token not in barred] or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _several(ids: int | list[int] | None) -> tuple[int, ...]:
    return () if ids is None else tuple(ids) if isinstance(ids, list) else (ids,)


def _one_or_several(ids: tuple[int, ...]) -> int | list[int] | None:
    return (ids[0] if len(ids) == 1 else list(ids)) if ids else None


_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_KINDS = {
    **dict.fromkeys(("bos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id"), "{}"),
    **dict.fromkeys(("eos_token_id", "forced_eos_token_id"), "{} or a list of them"),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens"), "a list, each entry {}"),
    "bad_words_ids": "a list of lists, each entry of those {}",
}
"""What a field must be; {} stands for a token id."""


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The fields of config.json and of generation_config.json, checked; None where there is no such file.

    A token of config.json that the vocabulary does not have means none: older files say it by -1, and small models are
    published with the tokens of large ones.
    """
    config, path = folder / "config.json", folder / FILE
    fields = read_fields(config) if config.is_file() else {}
    size = fields.get("decoder_vocab_size") or fields.get("vocab_size")
    ids = range(size if isinstance(size, int) else 2**31)
    _check(fields, config, None)
    fields |= {name: _within(fields[name], ids) for name in _SPECIAL if fields.get(name) is not None}
    if not path.is_file():
        return fields, None
    said = read_fields(path)
    _check(said, path, ids)
    return fields, said


def _check(fields: Mapping[str, Any], path: Path, ids: range | None) -> None:
    """Refuses what is no token where a token belongs; None for any whole number."""
    for name, kind in _KINDS.items():
        value = fields.get(name)
        if value is not None and not _fits(value, kind, ids):
            wanted = kind.format("a token id" if ids is None else f"a token id in 0..{len(ids) - 1}")
            raise ValueError(f"{name} in {path} must be {wanted}: got {value!r}; mend it, or take it out of the file")


def _fits(value: Any, kind: str, ids: range | None) -> bool:
    if isinstance(value, list):
        if kind.startswith("a list of lists"):
            return all(isinstance(words, list) and bool(words) and _fits(words, "a list", ids) for words in value)
        return "list" in kind and all(_fits(token, "{}", ids) for token in value)
    if kind.startswith("a list"):
        return False
    return isinstance(value, int) and not isinstance(value, bool) and (ids is None or value in ids)


def _within(value: int | list[int], ids: range) -> int | list[int] | None:
    """The tokens among `ids`; None without any."""
    if isinstance(value, list):
        return [token for token in value if token in ids] or None
    return value if value in ids else None
