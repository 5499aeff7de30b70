"""What a published folder says of how texts begin and end: generation_config.json, and where it is missing config.json."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxllm.interchange.config_reader import read_fields
from jaxllm.models import EncoderDecoderConfig, TransformerConfig

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


def writes_text(config: Any) -> bool:
    """Whether a model of this config has a `generate`."""
    if isinstance(config, EncoderDecoderConfig):
        return True
    return isinstance(config, TransformerConfig) and config.causal and config.head.kind == "vocabulary"


def read_told(folder: Path, config: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The fields of config.json and of generation_config.json in a Hugging Face folder; None where there is no such file.

    A token that the vocabulary does not have counts as none: older files say none by -1, and small models are published with
    the tokens of large ones. A warning names it, unless config.json has it for the beginning, end or padding. Of a model that
    writes no text, these three are read in config.json, and nothing else.

    Args:
      config: the model's.

    Raises:
      ValueError: the model writes text, and a file says something else than tokens where tokens belong, or
        generation_config.json forces or suppresses what is not in the vocabulary.
    """
    path = folder / "config.json"
    if not isinstance(config, TransformerConfig | EncoderDecoderConfig):
        return {}, None
    ids = range((config.decoder if isinstance(config, EncoderDecoderConfig) else config).vocabulary)
    if not writes_text(config):
        fields = read_fields(path)
        return {name: fields[name] for name in _SPECIAL if _fits(fields.get(name), name) and _has(ids, fields[name])}, None
    said = _read_tokens(folder / FILE, ids, strict=True) if (folder / FILE).is_file() else None
    return _read_tokens(path, ids, strict=False), said


def start_id(config: Mapping[str, Any], generation: Mapping[str, Any] | None) -> int | None:
    """The token that transformers has a decoder begin with: as generation_config.json says, else config.json; None where
    neither does. Where a file has no such token, the one that begins a text is taken."""
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
    might_end = not defaults.eos_ids or not set(defaults.eos_ids).isdisjoint(defaults.suppress)
    barred = set(defaults.suppress) if might_end else set()
    for forced in ({defaults.forced_bos}, set(defaults.forced_eos)):
        nothing_left = forced <= barred
        if nothing_left:
            barred -= forced
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
_ONE, _ONE_OR_LIST = ((0,), "{}"), ((0, 1), "{} or a list of them")
_LIST, _LISTS = ((1,), "a list, each entry {}"), ((2,), "a list of lists, each entry of those {}")
_FORMS: dict[str, tuple[tuple[int, ...], str]] = {
    **dict.fromkeys(("bos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id"), _ONE),
    **dict.fromkeys(("eos_token_id", "forced_eos_token_id"), _ONE_OR_LIST),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens"), _LIST),
    "bad_words_ids": _LISTS,
}
"""How deep in lists a field may have its tokens, and what that is in words, with {} for a token."""


def _read_tokens(path: Path, ids: range, strict: bool) -> dict[str, Any]:
    """The fields of a file, without tokens that are not among `ids`; those that are forced or suppressed it refuses where it
    is strict."""
    fields, strange = read_fields(path), {}
    for name, (_, wording) in _FORMS.items():
        value = fields.get(name)
        if value is None or _fits(value, name) and _has(ids, value):
            continue
        if not _fits(value, name) or (strict and name not in _SPECIAL):
            wanted = wording.format(f"a token id in 0..{len(ids) - 1}")
            raise ValueError(f"{name} in {path} must be {wanted}: got {value!r}; mend it, or take it out of the file")
        fields[name] = [each for each in value if _has(ids, each)] or None if isinstance(value, list) else None
        strange[name] = value
    told = [f"{name}={value}" for name, value in strange.items() if strict or name not in _SPECIAL]
    if told:
        missing = f"{path} has tokens that are not among the model's 0..{len(ids) - 1}: {', '.join(told)}"
        warnings.warn(f"{missing}; they count as none", stacklevel=4)
    return fields


def _fits(value: Any, name: str) -> bool:
    depths, _ = _FORMS[name]
    return any(_is_nested(value, depth) for depth in depths)


def _is_nested(value: Any, depth: int) -> bool:
    """Whether it is a whole number or, at a depth of 1 and more, lists of them; only the outermost may be empty."""
    if depth == 0:
        return type(value) is int
    return isinstance(value, list) and all(_is_nested(each, depth - 1) and each != [] for each in value)


def _has(ids: range, value: Any) -> bool:
    """Whether all tokens in a value are among `ids`."""
    return all(_has(ids, each) for each in value) if isinstance(value, list) else value in ids
