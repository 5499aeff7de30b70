"""Thirty random configs a class give the numbers that transformers gives: JAXLLM_ORACLE_PYTHON names a Python with it.

    JAXLLM_ORACLE_PYTHON=... pytest -m slow -s tests/interchange/test_random_configs.py

A class is a row of `ROWS`: how its config.json is drawn, what it is called with, and what is compared.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from safetensors.numpy import save_file

from jaxllm.interchange import ConfigReader, find_family
from jaxllm.interchange.export import published_config
from jaxllm.interchange.keymap import bind_all, published_shapes
from jaxllm.interchange.open import read_config
from jaxllm.models import abstract_params, make_model
from tests.interchange import random_configs, random_encoders
from tests.interchange.battery import load
from tests.interchange.seeded import seeded

DRAWS = 30
ORACLE = os.environ.get("JAXLLM_ORACLE_PYTHON")
SCRIPT = Path(__file__).parents[2] / "scripts" / "oracle" / "answer.py"
PADDING = ((4, 0), (0, 3), (0, 0))
"""Padded places before and after each row of tokens."""

Arrays = dict[str, np.ndarray]


class Row(NamedTuple):
    """One class."""

    fields: Any
    """The strategy that draws its config.json."""
    inputs: Callable[[Any], Arrays]
    """Keywords to call the model of transformers with, for one of our configs."""
    compute: Callable[[Any, Any, Arrays], jax.Array]
    """What our model with these parameters makes of them."""
    where: Callable[[Arrays], np.ndarray]
    """Where the results are compared: all but their last axis, or the leading ones of these."""


def texts(config: Any, name: str = "", seed: int = 0) -> Arrays:
    """Tokens, and which of them are no padding; `name` goes before the keywords."""
    rng, length = np.random.default_rng(seed), 12
    mask = np.ones((len(PADDING), length), np.int64)
    for row, (before, after) in enumerate(PADDING):
        mask[row, :before] = mask[row, length - after :] = 0
    return {f"{name}input_ids": rng.integers(1, config.vocabulary, mask.shape) * mask, f"{name}attention_mask": mask}


def decoder_inputs(config: Any) -> Arrays:
    inputs = texts(config)
    return inputs | {"position_ids": np.maximum(np.cumsum(inputs["attention_mask"], axis=1) - 1, 0)}


def decoder_logits(model: Any, params: Any, inputs: Arrays) -> jax.Array:
    tokens, mask, positions = (jnp.asarray(inputs[name], jnp.int32) for name in ("input_ids", "attention_mask", "position_ids"))
    return model.apply({"params": params}, tokens, positions=positions, segment_ids=mask).logits


def translation_inputs(config: Any) -> Arrays:
    return texts(config.encoder) | texts(config.decoder, "decoder_", seed=1)


def translation(model: Any, params: Any, inputs: Arrays) -> Any:
    source, mask = (jnp.asarray(inputs[name], jnp.int32) for name in ("input_ids", "attention_mask"))
    target, target_mask = (jnp.asarray(inputs[f"decoder_{name}"], jnp.int32) for name in ("input_ids", "attention_mask"))
    return model.apply({"params": params}, source, target, segment_ids=mask, decoder_segment_ids=target_mask)


def translation_logits(*given: Any) -> jax.Array:
    return translation(*given).logits


def translation_hidden(*given: Any) -> jax.Array:
    return translation(*given).hidden


def encoder_inputs(config: Any) -> Arrays:
    """No row is padded on the left where a head reads the first token: transformers would read a padded place."""
    inputs = texts(config)
    if config.head.pooler:
        inputs = {
            name: np.stack([np.roll(row, -before) for row, (before, _) in zip(value, PADDING, strict=True)])
            for name, value in inputs.items()
        }
    if config.position_offset:  # its positions are counted from the tokens that are no padding
        padding = config.position_offset - 1
        tokens = np.where(inputs["input_ids"] == padding, padding + 1, inputs["input_ids"])
        return inputs | {"input_ids": np.where(inputs["attention_mask"] == 1, tokens, padding)}
    inputs["position_ids"] = np.maximum(np.cumsum(inputs["attention_mask"], axis=1) - 1, 0)
    if config.token_types:
        inputs["token_type_ids"] = np.random.default_rng(1).integers(0, config.token_types, inputs["input_ids"].shape)
    return inputs


def encoder_output(model: Any, params: Any, inputs: Arrays) -> jax.Array:
    tokens, mask = (jnp.asarray(inputs[name], jnp.int32) for name in ("input_ids", "attention_mask"))
    more = {"token_types": jnp.asarray(inputs["token_type_ids"], jnp.int32)} if "token_type_ids" in inputs else {}
    positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
    output = model.apply({"params": params}, tokens, positions=positions, segment_ids=mask, **more)
    return output.hidden if output.logits is None else output.logits


def image_inputs(config: Any) -> Arrays:
    shape = (2, config.channels, config.image_size, config.image_size)
    return {"pixel_values": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}


def image_logits(model: Any, params: Any, inputs: Arrays) -> jax.Array:
    return model.apply({"params": params}, jnp.asarray(inputs["pixel_values"].transpose(0, 2, 3, 1))).logits


def everywhere(inputs: Arrays) -> np.ndarray:
    return np.ones(len(next(iter(inputs.values()))), bool)


def no_padding_in_the_target(inputs: Arrays) -> np.ndarray:
    return inputs["decoder_attention_mask"] == 1


def no_padding(inputs: Arrays) -> np.ndarray:
    return inputs["attention_mask"] == 1


ROWS: dict[str, Row] = {
    name: Row(fields, decoder_inputs, decoder_logits, no_padding) for name, fields in random_configs.DECODERS.items()
}
ROWS |= {
    name: Row(
        fields,
        translation_inputs,
        translation_hidden if name == "BartModel" else translation_logits,
        no_padding_in_the_target,
    )
    for name, fields in random_configs.ENCODER_DECODERS.items()
}
ROWS |= {
    name: Row(
        fields,
        encoder_inputs,
        encoder_output,
        everywhere if name == "BertForSequenceClassification" else no_padding,
    )
    for name, fields in random_encoders.TEXTS.items()
}
ROWS |= {name: Row(fields, image_inputs, image_logits, everywhere) for name, fields in random_encoders.IMAGES.items()}


class Oracle:
    """One process that answers for all draws of a class."""

    def __enter__(self) -> "Oracle":
        assert ORACLE is not None
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([ORACLE, SCRIPT], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def ask(self, folder: Path) -> np.ndarray:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()
        problem = json.loads(self.process.stdout.readline())
        assert not problem, problem
        with np.load(folder / "outputs.npz") as outputs:
            return next(iter(outputs.values()))


def write_published(folder: Path, fields: dict[str, Any]) -> Any:
    """A published folder of this config with seeded weights; returns our config, which can be written again."""
    family = find_family(fields["architectures"][0])
    config = read_config(family, ConfigReader(fields, "config.json"))
    leaves = jax.tree_util.tree_leaves_with_path(abstract_params(make_model(config))[0])
    shapes = {"/".join(str(key.key) for key in keys): tuple(leaf.shape) for keys, leaf in leaves}
    tensors = published_shapes(bind_all(family.tensors(config), shapes))
    (folder / "config.json").write_text(json.dumps(fields))
    save_file({name: seeded(name, shape) for name, shape in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    published_config(family, config)
    return config


@pytest.mark.slow
@pytest.mark.skipif(ORACLE is None, reason="JAXLLM_ORACLE_PYTHON names no Python with torch and transformers")
@pytest.mark.parametrize("name", ROWS)
def test_random_configs_equal_transformers(name, tmp_path):
    row, differences = ROWS[name], []

    @settings(
        max_examples=DRAWS,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(fields=row.fields)
    def check(fields):
        folder = tmp_path / str(len(differences))
        folder.mkdir(exist_ok=True)
        config = write_published(folder, {"architectures": [name], "pad_token_id": 0} | fields)
        inputs = row.inputs(config)
        np.savez(folder / "inputs.npz", **inputs)  # type: ignore[arg-type]
        want = oracle.ask(folder)
        _, model, params = load(folder)
        got = np.asarray(jax.jit(lambda params: row.compute(model, params, inputs))(params))
        assert got.shape == want.shape
        where = row.where(inputs)
        differences.append(np.abs(got[where] - want[where]).max())
        np.testing.assert_allclose(got[where], want[where], atol=1e-4, rtol=0)

    with Oracle() as oracle:
        check()
    assert len(differences) == DRAWS
    print(f"\n{name}: {len(differences)} configs, largest difference {max(differences):.1e}")
