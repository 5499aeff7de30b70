"""What a published folder says of how texts end: generation_config.json, and where it is missing config.json."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class GenerationDefaults(NamedTuple):
    """Tokens with a meaning in generation. Settings of sampling are the caller's choice and not read."""

    eos_ids: tuple[int, ...]
    """Any of them ends a text."""
    suppress: tuple[int, ...]
    """Never to be written."""


def read_generation(folder: Path) -> GenerationDefaults:
    """The defaults of a Hugging Face folder; both empty where nothing is said.

    Raises:
      ValueError: a file that is not JSON.
    """
    config, generation = (_read(folder / name) for name in ("config.json", "generation_config.json"))
    return generation_defaults({**config, **{name: value for name, value in generation.items() if value is not None}})


def generation_defaults(fields: Mapping[str, Any]) -> GenerationDefaults:
    """The defaults among the fields of such a file."""
    for name in ("forced_bos_token_id", "begin_suppress_tokens"):
        if fields.get(name) is not None:
            warnings.warn(f"{name}={fields[name]} is not applied: texts may differ from transformers'", stacklevel=3)
    eos = fields.get("eos_token_id")
    ends = () if eos is None else tuple(eos) if isinstance(eos, list) else (eos,)
    single_bad = [words[0] for words in fields.get("bad_words_ids") or () if len(words) == 1]
    return GenerationDefaults(ends, tuple(dict.fromkeys([*(fields.get("suppress_tokens") or ()), *single_bad])))


def generation_fields(defaults: GenerationDefaults) -> dict[str, Any]:
    """generation_config.json of these defaults."""
    eos = list(defaults.eos_ids)
    fields: dict[str, Any] = {"eos_token_id": eos[0] if len(eos) == 1 else eos} if eos else {}
    return fields | ({"bad_words_ids": [[token] for token in defaults.suppress]} if defaults.suppress else {})


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON: {error}; get the file again") from error
