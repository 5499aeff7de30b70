"""Every field of config.json is read, known to change nothing, or refused by name."""

import json

import pytest

from jaxllm.interchange import ConfigReader
from jaxllm.interchange.config_reader import read_config_file
from jaxllm.interchange.fields import read_activation, read_rope, write_activation, write_rope
from jaxllm.models import TransformerConfig


def reader(**fields):
    return ConfigReader(fields, "config.json")


def test_reading_a_field():
    config = reader(hidden_size=64, rms_norm_eps=1, head_dim=None, hidden_act="silu", tie=True)
    assert config.read("hidden_size") == 64
    assert config.read("rms_norm_eps", 1e-6) == 1 and config.read("norm_eps", 1e-6) == 1e-6
    assert config.read("head_dim", 8) is None
    assert config.must_be("hidden_act", "relu", "silu") == "silu" and config.must_be("other", "x") == "x"
    assert config.read("tie", False) is True


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda c: c.read("hidden_size"),
            r"config.json must have a value for hidden_size: it has none \(it has hidden_sise\); add",
        ),
        (lambda c: c.read("head_dim"), "config.json must have a value for head_dim: it has none"),
        (lambda c: c.read("layers", 2), "layers in config.json must be a number: got 'two'"),
        (lambda c: c.read("tie", 1.0), "tie in config.json must be a number: got True"),
        (lambda c: c.must_be("scale", True), "scale in config.json must be True to be computed here: got False"),
        (
            lambda c: c.must_be("layers", "a", "b"),
            "layers in config.json must be one of 'a', 'b' to be computed here: got 'two'",
        ),
        (lambda c: c.group("layers"), "layers in config.json must hold fields: got 'two'"),
        (lambda c: c.architecture, 'config.json must name its class, such as "architectures"'),
    ],
)
def test_fields_that_do_not_serve(ask, message):
    with pytest.raises(ValueError, match=message):
        ask(reader(hidden_sise=64, head_dim=None, layers="two", tie=True, scale=False))


def test_what_is_left_over_is_refused_by_name_and_value():
    config = reader(hidden_size=64, use_cache=False, is_decoder=False, nothing=None, quantization_config={"bits": 4}, zero=0)
    config.read("hidden_size")
    with pytest.raises(ValueError, match=r"not known here: quantization_config=\{'bits': 4\}, zero=0; where they change"):
        config.finish()
    config.ignore("quantization_config", "zero")
    config.finish()


def test_harmless_values_are_harmless_only_as_such():
    with pytest.raises(ValueError, match="add_cross_attention=True"):
        reader(add_cross_attention=True).finish()


def test_groups_are_finished_too():
    config = reader(rope_parameters={"rope_type": "default", "stretch": 2})
    group = config.group("rope_parameters")
    group.must_be("rope_type", "default")
    with pytest.raises(ValueError, match="rope_parameters in config.json has fields .*: stretch=2"):
        config.finish()


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ("[]", r"must hold fields, \{...\}: got list"), (None, "expected config.json in")],
)
def test_files_that_are_no_config(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_config_file(tmp_path)


ROPES = {
    "older file": ({"rope_theta": 5e5, "rope_scaling": None}, {}),
    "default": ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, {}),
    "linear": (
        {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"kind": "linear", "factor": 4.0},
    ),
    "llama3": (
        {
            "rope_theta": 5e5,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        },
        {"kind": "llama3", "factor": 8.0, "original_context_len": 8192},
    ),
    "yarn": (
        {
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "yarn", "rope_theta": 5e5, "factor": 2, "beta_fast": 16},
        },
        {"kind": "yarn", "factor": 2.0, "beta_fast": 16.0, "original_context_len": 2048},
    ),
}


@pytest.mark.parametrize("name", ROPES)
def test_rotary_fields_both_ways(name):
    fields, scaling = ROPES[name]
    config = reader(**fields)
    rope = read_rope(config, head_dim=8)
    config.finish()
    assert rope["rope_theta"] == 5e5 and rope["rotary_dim"] is None
    assert (rope["rope_scaling"] is None) == (not scaling)
    for field, value in scaling.items():
        assert getattr(rope["rope_scaling"], field) == value
    ours = TransformerConfig(position="rotary", embed_dim=32, num_heads=4, **rope)
    assert read_rope(reader(**json.loads(json.dumps(write_rope(ours)))), head_dim=8) == rope


def test_part_of_a_head_is_turned():
    assert read_rope(reader(partial_rotary_factor=0.25), 32)["rotary_dim"] == 8
    assert read_rope(reader(rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.5}), 32)["rotary_dim"] == 16
    assert read_rope(reader(), 32, theta=1e6, partial=0.25) == {"rope_theta": 1e6, "rope_scaling": None, "rotary_dim": 8}


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "rope_type in rope_scaling in config.json must be one of 'default'"),
        ({"type": "longrope"}, "type in rope_scaling in config.json must be one of"),
        ({"rope_type": "yarn", "factor": 2.0, "mscale": 0.7}, "mscale in rope_scaling .* must be None to be computed"),
    ],
)
def test_rotary_positions_that_are_not_supported(rope, message):
    with pytest.raises(ValueError, match=message):
        read_rope(reader(max_position_embeddings=64, rope_scaling=rope), 8)


def test_activations():
    assert read_activation(reader(act="gelu_new"), "act", "gelu") == "gelu_tanh"
    assert read_activation(reader(), "act", "silu", gated=True) == "swiglu"
    assert [write_activation(ours) for ours in ("gelu_tanh", "swiglu", "relu", "geglu")] == ["gelu_new", "silu", "relu", "gelu"]
    with pytest.raises(ValueError, match="act in config.json must be one of 'gelu', .* got 'quick_gelu'"):
        read_activation(reader(act="quick_gelu"), "act", "gelu")
