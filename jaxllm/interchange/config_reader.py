"""Reads a published config.json, and knows every field that was asked for: what is left over may not change the numbers."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

IGNORABLE = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path architectures attn_implementation auto_map
    dtype gradient_checkpointing model_type tokenizer_class torch_dtype torchscript transformers.js_config
    transformers_version use_cache use_bfloat16 tf_legacy_loss pretraining_tp chunk_size_feed_forward
    initializer_factor initializer_range output_attentions output_hidden_states return_dict output_scores
    return_dict_in_generate finetuning_task id2label label2id num_labels problem_type prefix task_specific_params
    bos_token_id cls_token_id decoder_start_token_id eos_token_id mask_token_id pad_token_id sep_token_id
    forced_bos_token_id forced_eos_token_id begin_suppress_tokens suppress_tokens bad_words_ids
    max_length max_new_tokens min_length do_sample early_stopping num_beams num_beam_groups num_return_sequences
    diversity_penalty encoder_no_repeat_ngram_size exponential_decay_length_penalty length_penalty no_repeat_ngram_size
    remove_invalid_values repetition_penalty temperature top_k top_p typical_p
    """.split()
)
"""Fields that do not change what the network computes: types and tokens that others read, training, search."""

HARMLESS: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({},),
    "per_layer_config": ({},),
    "partial_rotary_factor": (1.0,),
    "rope_interleaved": (False,),
    "use_mrope": (False,),
    "is_llama_config": (True, False),
}
"""Fields of any model that say nothing at these values."""

_REQUIRED: Any = object()


class ConfigReader:
    """The fields of one config.json, or of a group in it.

    >>> reader = ConfigReader({"hidden_size": 64, "hidden_act": "silu"}, "config.json")
    >>> reader.read("hidden_size"), reader.read("rms_norm_eps", 1e-6), reader.must_be("hidden_act", "silu")
    (64, 1e-06, 'silu')
    >>> reader.finish()
    """

    def __init__(self, fields: Mapping[str, Any], source: str | Path) -> None:
        self.fields = dict(fields)
        self.source = str(source)
        self._seen: set[str] = set()
        self._groups: list[ConfigReader] = []

    @property
    def architecture(self) -> str:
        """The class that the config names first."""
        named = self.fields.get("architectures")
        if not isinstance(named, list) or not named or not isinstance(named[0], str):
            raise ValueError(
                f'{self.source} must name its class, such as "architectures": ["LlamaForCausalLM"]: got {named!r}; add it'
            )
        return named[0]

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.fields.get(name) is not None

    def read(self, name: str, default: Any = _REQUIRED) -> Any:
        """The field's value; `default` where it is absent. A null is given as None, but not for a field that is required.

        Raises:
          ValueError: the field is required and not there, or of another type than `default`.
        """
        self._seen.add(name)
        value = self.fields.get(name)
        if default is _REQUIRED:
            if value is None:
                near = difflib.get_close_matches(name, set(self.fields) - {name}, n=1)
                hint = f" (it has {near[0]})" if near else ""
                raise ValueError(f"{self.source} must have a value for {name}: it has none{hint}; add it")
            return value
        if name not in self.fields:
            return default
        if value is not None and default is not None and _kind(value) != _kind(default):
            raise ValueError(f"{name} in {self.source} must be a {_kind(default)}: got {value!r}")
        return value

    def must_be(self, name: str, *allowed: Any) -> Any:
        """The field's value, which must be one of `allowed`; where it is absent, the first of them."""
        value = self.read(name, None) if name in self.fields else allowed[0]
        if value not in allowed:
            expected = allowed[0] if len(allowed) == 1 else f"one of {', '.join(map(repr, allowed))}"
            raise ValueError(f"{name} in {self.source} must be {expected} to be computed here: got {value!r}")
        return value

    def ignore(self, *names: str) -> None:
        """These fields do not change the numbers of this family."""
        self._seen.update(names)

    def group(self, name: str) -> "ConfigReader | None":
        """A reader of the fields under `name`; None where there are none."""
        self._seen.add(name)
        value = self.fields.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ValueError(f"{name} in {self.source} must hold fields: got {value!r}")
        self._groups.append(ConfigReader(value, f"{name} in {self.source}"))
        return self._groups[-1]

    def finish(self) -> None:
        """Refuses fields that nobody asked for, unless they are known to change nothing.

        Raises:
          ValueError: names all such fields with their values.
        """
        left = {
            name: value
            for name, value in self.fields.items()
            if name not in self._seen | IGNORABLE and value is not None and value not in HARMLESS.get(name, ())
        }
        if left:
            listed = ", ".join(f"{name}={value!r}" for name, value in left.items())
            raise ValueError(
                f"{self.source} has fields that may change the numbers and are not known here: {listed}; where they change "
                "nothing, take them out of the file"
            )
        for group in self._groups:
            group.finish()


def read_config_file(folder: Path) -> ConfigReader:
    """A reader of the config.json in a folder."""
    path = folder / "config.json"
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in folder.iterdir())[:8]) or "nothing"
        raise FileNotFoundError(f"expected config.json in {folder}: it holds {there}; name the folder of a published model")
    return ConfigReader(read_fields(path), path)


def read_fields(path: Path) -> dict[str, Any]:
    """The fields in a JSON file."""
    try:
        fields = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); copy or download it again") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must hold fields, {{...}}: got {type(fields).__name__}; copy or download it again")
    return fields


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "number" if isinstance(value, int | float) else "text" if isinstance(value, str) else type(value).__name__
