"""The Transformer over images: the reference's numbers, patch by patch, a second token, the mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.models import VisionConfig, make_model
from tests.models import reference
from tests.models.options import tiny_encoder
from tests.models.programs import exact, explicit_mesh_agrees, parameters, program

IMAGES = dict(image_size=12, patch_size=4, channels=2)
ROWS = {
    "vit": VisionConfig(**IMAGES, num_labels=6, encoder=tiny_encoder("alibi_bert", position="none", activation="gelu")),
    "deit": VisionConfig(**IMAGES, distillation_token=True, num_labels=6, encoder=tiny_encoder(
        "alibi_bert", position="none", activation="relu", norm_placement="post", layer_loop="unroll")),
}  # fmt: skip
every_row = pytest.mark.parametrize("name", ROWS)


def batch_of():
    return {"images": np.random.default_rng(1).normal(size=(4, 12, 12, 2)).astype(np.float32)}


@every_row
def test_equals_the_reference(name):
    config, batch = ROWS[name], batch_of()
    params, weights = parameters(config), np.zeros((4, config.num_tokens), np.float32)
    assert config.num_tokens == (11 if config.distillation_token else 10)
    logits, hidden = program(config)(params, batch, weights, np.float32(0))[0][1]
    for row in range(4):
        want = reference.vision(np.asarray(batch["images"][row], np.float64), exact(params), config)
        np.testing.assert_allclose(logits[row], want[0], atol=3e-5)
        np.testing.assert_allclose(hidden[row], want[1], atol=3e-5)


@every_row
def test_explicit_mesh_gives_the_same_value_and_gradient(name):
    explicit_mesh_agrees(ROWS[name], batch_of(), ROWS[name].num_tokens)


def test_outputs_beside_the_logits():
    """Hidden states and maps on request; no logits without labels; a head mask as for text."""
    config = VisionConfig(**IMAGES, encoder=ROWS["vit"].encoder)
    model, params, images = make_model(config), parameters(config), batch_of()["images"]
    mask = np.ones((2, 4), np.float32)
    mask[1, 2] = 0
    apply = jax.jit(lambda x, m: model.apply({"params": params}, x, head_mask=m, capture=("hidden", "attention")))
    output, whole = apply(images, mask), apply(images, np.ones((2, 4), np.float32))
    assert output.logits is None and "classifier" not in params
    assert output.captured["hidden"].shape == (3, 4, 10, 32) and output.captured["attention"].shape == (2, 4, 4, 10, 10)
    want = reference.vision(np.asarray(images[0], np.float64), exact(params), config)[1]
    np.testing.assert_allclose(whole.hidden[0], want, atol=3e-5)
    assert np.abs(output.hidden - whole.hidden).max() > 0.01


def test_images_of_another_shape_are_refused():
    config = ROWS["vit"]
    model, params = make_model(config), parameters(config)
    for shape in ((1, 12, 12, 3), (1, 16, 16, 2), (1, 2, 12, 12)):
        with pytest.raises(ValueError, match=r"images must be \[batch, height, width, channels\] with \(12, 12, 2\): got"):
            jax.eval_shape(lambda images: model.apply({"params": params}, images), jnp.zeros(shape))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(patch_size=5), "patch_size must divide image_size: got image_size=12, patch_size=5"),
        (dict(encoder=tiny_encoder("alibi_bert")), "encoder must have causal=False, position='none' and no window"),
        (dict(encoder=tiny_encoder("bert", position="none", causal=True)), "encoder must have causal=False"),
        (dict(encoder=tiny_encoder("bert", position="none", window=2)), "no window"),
        (dict(num_labels=3, label_names=("cat", "dog")), "label_names must be num_labels names: got 2 for 3"),
    ],
)
def test_impossible_configs_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        VisionConfig(**{**IMAGES, "encoder": ROWS["vit"].encoder, **fields})
