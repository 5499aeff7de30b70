"""adapter_config.json both ways: the fields that change the numbers are read, those that cannot are known, and others are
refused with their names."""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from jaxllm.interchange import ConfigReader
from jaxllm.interchange.config_reader import read_fields
from jaxllm.models import EncoderDecoderConfig, ModelConfig, VisionConfig

CONFIG = "adapter_config.json"
PROMPTS = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
KINDS = ("LORA", "ADALORA", "IA3", "VERA", *PROMPTS)

_ALWAYS = (
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "fan_in_fan_out", "inference_mode", "layers_pattern",
    "layers_to_transform", "modules_to_save", "peft_type", "peft_version", "revision", "target_modules", "task_type",
)  # fmt: skip
"""Fields whose meaning the names and shapes of the tensors have already, and those that say where a file comes from."""
_WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {
    "LORA": ("megatron_core", "qalora_group_size", "ensure_weight_tying"),
    "ADALORA": ("r", "init_lora_weights", "megatron_core", "qalora_group_size", "ensure_weight_tying", "total_step"),
    "IA3": ("feedforward_modules", "init_ia3_weights"),
    "VERA": ("init_weights", "projection_prng_key"),
    "PREFIX_TUNING": ("encoder_hidden_size", "prefix_projection", "init_weights", "num_attention_heads", "token_dim"),
    "PROMPT_TUNING": (
        "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs", "num_attention_heads",
        "num_layers", "token_dim", "num_transformer_submodules",
    ),
    "P_TUNING": (
        "encoder_reparameterization_type", "encoder_hidden_size", "encoder_num_layers", "encoder_dropout",
        "num_attention_heads", "num_layers", "token_dim", "num_transformer_submodules",
    ),
}  # fmt: skip
"""By peft_type the fields that count where an adapter begins only."""
_SAYS_FALSE = ("save_projection", "init_lora_weights")
"""Fields whose default is another."""
HEADS = {"SEQ_CLS": ("classifier", "score"), "TOKEN_CLS": ("classifier", "score"), "QUESTION_ANS": ("qa_outputs",)}
"""By task_type the ends of names of modules that PEFT saves with every adapter."""


def read_config(folder: Path) -> ConfigReader:
    """A reader of the config of an adapter; who has read all that counts calls its `finish`.

    Raises:
      FileNotFoundError: none there.
      ValueError: a peft_type that is not known here.
    """
    path = folder / CONFIG
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
        raise FileNotFoundError(f"expected {CONFIG} in {folder}: {there or 'it is empty'}; name the folder of a PEFT adapter")
    fields = read_fields(path)
    kind = fields.get("peft_type")
    if kind not in KINDS:
        raise ValueError(f"peft_type in {path} must be one of {', '.join(KINDS)}: got {kind!r}; merge that adapter with PEFT")
    known = {*_ALWAYS, *_WITHOUT_EFFECT[kind]}
    fields = {
        name: value
        for name, value in fields.items()
        if name in known or not _is_off(value) or (name in _SAYS_FALSE and value is False)
    }
    reader = ConfigReader(fields, path)
    reader.ignore(*known)
    return reader


def _is_off(value: Any) -> bool:
    """Whether a field says nothing; a number does, 0 too."""
    return value is None or value is False or (isinstance(value, dict | list) and not value)


def made_for(fields: Mapping[str, Any]) -> str:
    """The base model of an adapter, in words."""
    return str(fields.get("base_model_name_or_path") or "a base model that its config does not name")


def of_pattern(patterns: Mapping[str, Any] | None, name: str, default: Any) -> Any:
    """What `rank_pattern` or `alpha_pattern` say of a module: the first that its path ends with, or that means it as a regular
    expression."""
    return next((value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", name)), default)


def task_type(config: ModelConfig) -> str | None:
    """PEFT's word for what a model is for."""
    if isinstance(config, VisionConfig):
        return None
    if isinstance(config, EncoderDecoderConfig):
        return "SEQ_2_SEQ_LM"
    if config.head.kind == "vocabulary":
        return "CAUSAL_LM" if config.causal else None
    return {"sequence": "SEQ_CLS", "tokens": "TOKEN_CLS", "span": "QUESTION_ANS", "none": "FEATURE_EXTRACTION"}[
        config.head.kind
    ]


def endings(chosen: Collection[str], everything: Collection[str], *, dotted: bool = True) -> list[str]:
    """The shortest ends of paths that mean the chosen ones and no other.

    >>> endings(["h.0.attn.q", "h.1.attn.q"], ["h.0.attn.q", "h.1.attn.q", "h.0.attn.o", "h.1.attn.o"])
    ['q']

    Args:
      dotted: whether an end begins where a name does, as in target_modules; in modules_to_save it need not.
    """
    wanted, left, found = set(chosen), set(chosen), []
    for name in sorted(wanted):
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            end = ".".join(parts[-count:])
            meant = {other for other in everything if other == end or other.endswith(f".{end}" if dotted else end)}
            whole = count == len(parts) or (meant <= wanted and end not in _BASE_TOO)
            if name in left and whole:
                found.append(end)
                left -= meant
                break
    return found


_BASE_TOO = ("embed_tokens", "lm_head")
"""Words that, alone in target_modules, make PEFT store the base's weight as well."""


def by_pattern(values: Mapping[str, Any], everything: Collection[str]) -> tuple[Any, dict[str, Any]]:
    """The value that most modules have, and those of the others by the ends of their names."""
    default = Counter(values.values()).most_common(1)[0][0]
    patterns = {}
    for value in dict.fromkeys(values.values()):
        if value != default:
            names = [name for name, other in values.items() if other == value]
            patterns |= dict.fromkeys(endings(names, everything), value)
    return default, patterns


def write_config(folder: Path, kind: str, base: str, task: str | None, fields: Mapping[str, Any]) -> None:
    """Writes adapter_config.json as PEFT does: fields that have long been there, sorted."""
    common = {"auto_mapping": None, "base_model_name_or_path": base, "inference_mode": True, "revision": None}
    content = {**common, "peft_type": kind, "task_type": task, **fields}
    (folder / CONFIG).write_text(json.dumps(dict(sorted(content.items())), indent=2) + "\n", "utf-8")
