"""What a published folder says of how texts begin and end: generation_config.json, and where it is missing config.json."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
      ValueError: a file that is not JSON.
    """
    return generation_defaults(_read(folder / "config.json"), _read(folder / FILE))


def read_start_id(folder: Path) -> int | None:
    """The token that generation_config.json has a decoder begin with, which counts for more than config.json's."""
    return _read(folder / FILE).get("decoder_start_token_id")


def generation_defaults(config: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> GenerationDefaults:
    """The defaults among the fields of config.json and generation_config.json.

    As in transformers, what is forced or suppressed is told by the second alone where there is one. Tokens that end, begin
    and pad a text are taken from the first where the second does not tell them.
    """
    said = {name: value for name, value in (generation or {}).items() if value is not None}
    tokens, rules = {**config, **said}, said or config
    ends = _several(tokens.get("eos_token_id"))
    bad_words = [tuple(words) for words in rules.get("bad_words_ids") or ()]
    if several := [words for words in bad_words if len(words) > 1]:
        warnings.warn(f"bad_words_ids of several tokens are not applied: {several[0]}; leave them out by hand", stacklevel=3)
    bad = [words[0] for words in bad_words if len(words) == 1 and words[0] not in ends]
    forced_bos = rules.get("forced_bos_token_id")
    if forced_bos is None and rules.get("force_bos_token_to_be_generated"):  # as the first files of BART have it
        forced_bos = rules.get("bos_token_id")
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
    """The fields of generation_config.json for these defaults; none for what they do not say."""
    fields = {
        "bos_token_id": defaults.bos_id,
        "eos_token_id": _one_or_several(defaults.eos_ids),
        "pad_token_id": defaults.pad_id,
        "forced_bos_token_id": defaults.forced_bos,
        "forced_eos_token_id": _one_or_several(defaults.forced_eos),
        "begin_suppress_tokens": list(defaults.begin_suppress) or None,
        "bad_words_ids": [[token] for token in defaults.suppress] or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _several(ids: int | list[int] | None) -> tuple[int, ...]:
    return () if ids is None else tuple(ids) if isinstance(ids, list) else (ids,)


def _one_or_several(ids: tuple[int, ...]) -> int | list[int] | None:
    return (ids[0] if len(ids) == 1 else list(ids)) if ids else None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON: {error}; get the file again") from error
