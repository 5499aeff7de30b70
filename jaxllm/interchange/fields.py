"""Fields of config.json that many families share, both ways: activations, rotary positions, dropout."""

from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.models.config import TransformerConfig
from jaxllm.models.options import RopeScaling

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Published name -> ours."""
GATED_ACTIVATIONS = {
    "silu": "swiglu",
    "swish": "swiglu",
    "gelu": "geglu",
    "gelu_pytorch_tanh": "geglu_tanh",
    "gelu_new": "geglu_tanh",
    "relu": "reglu",
}
"""The same where a second projection is multiplied with it."""
_SCALING = {
    "factor": "factor",
    "low_frequency_factor": "low_freq_factor",
    "high_frequency_factor": "high_freq_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "attention_factor": "attention_factor",
}
"""Fields of RopeScaling -> published."""


def read_activation(reader: ConfigReader, name: str, default: str, *, gated: bool = False) -> Any:
    """Our name of the activation in the field `name`."""
    table = GATED_ACTIVATIONS if gated else ACTIVATIONS
    return table[reader.must_be(name, default, *(known for known in table if known != default))]


def write_activation(activation: str) -> str:
    """The published name of one of ours.

    Raises:
      ValueError: there is none.
    """
    for published, ours in [*ACTIVATIONS.items(), *GATED_ACTIVATIONS.items()]:
        if ours == activation:
            return published
    raise ValueError(f"activation {activation!r} has no published name: those that have are {', '.join(ACTIVATIONS.values())}")


def read_rope(reader: ConfigReader, head_dim: int, *, theta: float = 10_000.0, partial: float = 1.0) -> dict[str, Any]:
    """rope_theta, rope_scaling and rotary_dim of our config, from `rope_parameters` or, in older files, from `rope_theta`,
    `rope_scaling` and `partial_rotary_factor`.

    Args:
      theta, partial: what the family takes where the file says nothing.

    Raises:
      ValueError: frequencies are changed in a way that is not supported.
    """
    partial = float(reader.read("partial_rotary_factor", partial))
    found = {
        "rope_theta": float(reader.read("rope_theta", theta)),
        "rope_scaling": None,
        "rotary_dim": _rotary_dim(head_dim, partial),
    }
    for name in ("rope_scaling", "rope_parameters"):
        rope = reader.group(name)
        if rope is not None:
            found |= read_rope_group(reader, rope, head_dim, theta=found["rope_theta"], partial=partial)
    return found


def read_rope_group(
    reader: ConfigReader, rope: ConfigReader, head_dim: int, *, theta: float = 10_000.0, partial: float = 1.0
) -> dict[str, Any]:
    """The same from one group of fields, where a config has several."""
    kind = rope.must_be("rope_type" if rope.has("rope_type") else "type", "default", "linear", "llama3", "yarn")
    rope.ignore("type")  # some files name it twice
    context = rope.read("original_max_position_embeddings", reader.read("max_position_embeddings", None))
    scaling = None
    if kind != "default":
        rope.must_be("truncate", True)
        rope.must_be("mscale", None)
        rope.must_be("mscale_all_dim", None)
        fields = {ours: rope.read(published) for ours, published in _SCALING.items() if rope.has(published)}
        scaling = RopeScaling(kind=kind, original_context_len=None if kind == "linear" else context, **_floats(fields))
    return {
        "rope_theta": float(rope.read("rope_theta", theta)),
        "rope_scaling": scaling,
        "rotary_dim": _rotary_dim(head_dim, rope.read("partial_rotary_factor", partial)),
    }


def write_rope(config: TransformerConfig) -> dict[str, Any]:
    """The fields that `read_rope` reads."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rotary_dim is not None:
        rope["partial_rotary_factor"] = config.rotary_dim / config.head_width
    if config.rope_scaling is not None:
        scaling = config.rope_scaling
        wanted = {"linear": ("factor",), "llama3": tuple(_SCALING)[:3]}.get(scaling.kind, ("factor", *tuple(_SCALING)[3:]))
        values = {published: getattr(scaling, ours) for ours, published in _SCALING.items() if ours in wanted}
        rope |= {name: value for name, value in values.items() if value is not None} | {"rope_type": scaling.kind}
        if scaling.kind != "linear":
            rope["original_max_position_embeddings"] = scaling.original_context_len
    return {"rope_parameters": rope}


def _rotary_dim(head_dim: int, partial: float) -> int | None:
    return None if partial == 1 else int(head_dim * partial)


def _floats(fields: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in fields.items()}
