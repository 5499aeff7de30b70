"""A model of images that was trained here: from its run folder to a picture's label, in either layout and in transformers."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

import jaxllm
from jaxllm.data import ImageDataConfig, open_images
from jaxllm.data.tfds_builder import Image, Label, write_set
from jaxllm.models import TransformerConfig, VisionConfig
from jaxllm.recipe import convert
from jaxllm.recipe.recipe import FromPretrained
from jaxllm.training import OptimizerConfig
from jaxllm.training.objectives import ImageClassification
from tests.interchange.test_preprocessor import theirs
from tests.quick import some
from tests.recipe import tiny

PICTURES = [np.random.default_rng(number).integers(0, 256, (9, 9 if number % 2 else 14, 3), np.uint8) for number in range(24)]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def png(picture):
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rows = [(str(number), png(picture), "ab"[number % 2]) for number, picture in enumerate(PICTURES)]
    features = {"id": None, "image": Image(), "label": Label(("a", "b"))}
    write_set("pictures", {"train": rows, "validation": rows}, folder, description="", features=features)
    encoder = TransformerConfig(num_layers=1, embed_dim=16, num_heads=2, causal=False, position="none", activation="gelu")
    recipe = tiny.config(
        run_dir=str(folder / "run"),
        steps=2,
        model=VisionConfig(image_size=8, patch_size=4, encoder=encoder),
        data=ImageDataConfig(dataset="pictures", data_dir=str(folder), image_size=8),
        objective=ImageClassification(crop_padding=1, mean=MEAN, std=STD),
    )
    jaxllm.fit(recipe)
    return folder / "run"


def test_a_picture_is_prepared_as_in_training(trained, tmp_path):
    """The evaluation's own rows, of square pictures and of wide ones, give the logits that files give."""
    m = jaxllm.load(trained)
    rows = open_images(m.recipe.data, seed=0).rows("train").rows(np.arange(4))
    pixels = (rows["images"].astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    want = m.model.apply({"params": m.params}, jnp.asarray(pixels)).logits
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for file, picture in zip(files, PICTURES, strict=False):
        file.write_bytes(png(picture))
    np.testing.assert_allclose(m(images=files).logits, want, atol=1e-5)
    chances = np.asarray(jax.nn.softmax(want, axis=-1))
    labels, found = zip(*m.classify(files), strict=True)
    assert labels == tuple("ab"[i] for i in chances.argmax(axis=-1))
    np.testing.assert_allclose(found, chances.max(axis=-1), atol=1e-5)


def test_it_goes_out_with_its_settings(trained, tmp_path):
    m = jaxllm.load(trained)
    convert(trained, tmp_path / "ours", to="jaxllm")
    convert(trained, tmp_path / "hf")
    for folder in ("ours", "hf"):
        other = jaxllm.load(tmp_path / folder)
        assert other.image_input == m.image_input and other.classify(PICTURES[:3]) == m.classify(PICTURES[:3])
    np.testing.assert_allclose(theirs(tmp_path / "hf", PICTURES[:3]), m.images(PICTURES[:3]), atol=1e-5)


@pytest.mark.parametrize("names", some(["xyz", "xy", "AB"], ["xyz"]))
def test_a_published_model_gets_a_new_head(names, trained, tmp_path):
    """Fine-tuned on other classes: the head is new, be there as many of them or not, and all else begins as it was."""
    convert(trained, tmp_path / "hf")
    rows = [(str(number), png(picture), names[number % len(names)]) for number, picture in enumerate(PICTURES)]
    features = {"id": None, "image": Image(), "label": Label(tuple(names))}
    write_set("others", {"train": rows}, tmp_path, description="", features=features)
    recipe = tiny.config(
        run_dir=str(tmp_path / "run"),
        steps=1,
        pretrained=str(tmp_path / "hf"),
        model=FromPretrained(),
        data=ImageDataConfig(dataset="others", data_dir=str(tmp_path), image_size=8, validation_split=None, test_split=None),
        objective=ImageClassification(mean=MEAN, std=STD),
        optimizer=OptimizerConfig(learning_rate=1e-9),
    )
    jaxllm.fit(recipe)
    m, base = jaxllm.load(tmp_path / "run"), jaxllm.load(trained)
    assert m.config.num_labels == len(names)
    if names != "AB":
        assert m.config.label_names == tuple(names)
    np.testing.assert_allclose(m(images=PICTURES[:1]).hidden, base(images=PICTURES[:1]).hidden, atol=1e-5)
    heads = [np.asarray(each.params["classifier"]["kernel"]) for each in (m, base)]
    assert (heads[0].shape == heads[1].shape and np.allclose(*heads, atol=1e-6)) == (names == "AB")


def test_a_model_of_text_takes_no_pictures(tmp_path):
    jaxllm.fit(tiny.config(run_dir=str(tmp_path / "run"), steps=1))
    with pytest.raises(ValueError, match="images are for a model of images: .* has one of text"):
        jaxllm.load(tmp_path / "run").images(PICTURES[0])
