"""Pictures in: preprocessor_config.json both ways, against transformers' image processors."""

import dataclasses
import io
import json
import warnings

import jax
import numpy as np
import PIL.Image
import pytest

import jaxllm
from jaxllm.data.image_input import ImageInput, open_image, prepare_images
from jaxllm.interchange import find_family, write_folder
from jaxllm.interchange.preprocessor import read_image_input, write_image_input
from jaxllm.models import TransformerConfig, VisionConfig, init_params, make_model
from jaxllm.recipe import convert
from tests.interchange.battery import GOLDEN

with np.load(GOLDEN / "image_processor.npz") as file:
    ARRAYS = {key: file[key] for key in file}
CASES = {key.removesuffix("/config"): json.loads(str(value)) for key, value in ARRAYS.items() if key.endswith("/config")}
PICTURES = [ARRAYS[f"picture/{number}"] for number in range(3)]
ENCODER = TransformerConfig(num_layers=1, embed_dim=16, num_heads=2, causal=False, position="none", activation="gelu")
VIT = VisionConfig(image_size=12, patch_size=4, num_labels=2, label_names=("cat", "dog"), encoder=ENCODER)


def read(folder, fields, config=VIT):
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    return read_image_input(folder, config)


@pytest.mark.parametrize("case", CASES)
def test_pixels_are_those_of_transformers(case, tmp_path):
    """Of pictures in each form: three at once, colours first, in a file; and one alone."""
    how, want = read(tmp_path, CASES[case]), ARRAYS[f"{case}/pixels"].transpose(0, 2, 3, 1)
    PIL.Image.fromarray(PICTURES[2]).save(tmp_path / "small.png")
    forms = [PIL.Image.fromarray(PICTURES[0]), PICTURES[1].transpose(2, 0, 1), tmp_path / "small.png"]
    np.testing.assert_allclose(prepare_images(forms, how), want, atol=1e-5, rtol=0)
    np.testing.assert_allclose(prepare_images(str(tmp_path / "small.png"), how), want[2:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_says_the_same_to_both(case, tmp_path):
    how = read(tmp_path, CASES[case])
    write_image_input(tmp_path, how, VIT)
    assert read_image_input(tmp_path, VIT) == how
    np.testing.assert_allclose(theirs(tmp_path, PICTURES), prepare_images(PICTURES, how), atol=1e-5, rtol=0)


def theirs(folder, pictures):
    """What transformers' own processor makes of them, scaling by Pillow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        return processor([PIL.Image.fromarray(picture) for picture in pictures], return_tensors="np")["pixel_values"].transpose(
            0, 2, 3, 1
        )


@pytest.mark.parametrize(
    "more",
    [
        {"do_rescale": None},
        {"do_rescale": False, "rescale_factor": 0.5},
        {"do_normalize": None},
        {"do_rescale": False},
        {"do_rescale": False, "rescale_factor": None},
        {"do_normalize": False, "image_mean": None, "image_std": None},
        {"do_resize": False, "size": None, "resample": None, "do_center_crop": True, "crop_size": 12},
        {"do_resize": None, "do_center_crop": True, "crop_size": 12},
        {"do_center_crop": False, "crop_size": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["ViT", "DeiT"])
def test_what_is_not_done_is_as_in_transformers(kind, more, tmp_path):
    """A null says no; and what is not used may say anything."""
    fields = {"image_processor_type": f"{kind}ImageProcessor", "size": 12, "crop_size": 12, **more}
    how = read(tmp_path, fields)
    np.testing.assert_allclose(theirs(tmp_path, PICTURES), prepare_images(PICTURES, how), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "ViT") for name in ("image_mean", "image_std", "resample", "size", "rescale_factor")] + [("crop_size", "DeiT")],
)
def test_a_null_of_what_is_needed_is_refused_here_and_there(name, kind, tmp_path):
    fields = {"image_processor_type": f"{kind}ImageProcessor", "size": 12, "crop_size": 12}
    with pytest.raises(ValueError, match=f"{name} in .*preprocessor_config.json must have a value: got null; correct it"):
        read(tmp_path, fields | {name: None})
    with pytest.raises(ValueError, match=f"`{name}`.* must"):
        theirs(tmp_path, PICTURES)


def test_grey_and_see_through_pictures():
    rng = np.random.default_rng(0)
    grey, alpha = rng.integers(0, 256, (6, 6), np.uint8), rng.integers(0, 256, (6, 6, 1), np.uint8)
    plain = ImageInput(scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    np.testing.assert_array_equal(prepare_images(grey, plain)[0], np.repeat(grey[..., None], 3, axis=-1))
    black = np.concatenate([np.zeros((6, 6, 3), np.uint8), alpha], axis=-1)
    assert np.abs(prepare_images(black, plain)[0] - (255.0 - alpha)).max() <= 1  # on white
    one = ImageInput(scale=1.0, mean=(0.0,), std=(1.0,))
    np.testing.assert_array_equal(prepare_images(grey[..., None], one), grey[None, :, :, None])


def test_a_photograph_is_turned_as_its_camera_says(tmp_path):
    image, turned = PIL.Image.fromarray(PICTURES[0]), PIL.Image.Exif()
    turned[0x0112] = 6  # a quarter to the right
    image.save(tmp_path / "turned.png", exif=turned)
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "turned.png")), np.rot90(PICTURES[0], -1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_processor_type": "CLIPImageProcessor"}, "must be ViTImageProcessor or DeiTImageProcessor: got 'CLIPImageP"),
        ({"do_pad": True}, "do_pad in .*preprocessor_config.json must be one of False, None to be computed here: got True"),
        ({"size": {"max_height": 12, "max_width": 12}}, "size in .* must be height and width, or shortest_edge alone"),
        ({"size": {"shortest_edge": 12, "longest_edge": 14}}, "size in .* must be height and width, or shortest_edge alone"),
        ({"size": {"shortest_edge": 12}}, r"has shortest_edge only, .*: the model reads \(12, 12\); set do_center_crop"),
        ({"size": 14}, r"makes pictures of \(14, 14\): the model reads \(12, 12\); correct size or crop_size"),
        (
            {"size": 12, "do_center_crop": True, "crop_size": {"shortest_edge": 9}},
            "crop_size in .* must have height and width",
        ),
        ({"size": 12, "resample": 7}, "resample in .* must be one of 2, 0, 1, 2.* got 7"),
        ({"size": 12, "do_flip_channel_order": True}, "not known here: do_flip_channel_order=True"),
        ({"size": 12, "image_mean": [0.5]}, r"image_mean in .* must have 3 numbers, one a colour: got \[0.5\]"),
        ({"size": 12, "image_std": [0.5, 0.0, 0.5]}, "preprocessor_config.json cannot be followed: std must be pos"),
        ({"size": 12, "image_std": [0.5, float("nan"), 0.5]}, "preprocessor_config.json cannot be followed: std must be pos"),
        ({"size": 12, "image_mean": [0.5, None, 0.5]}, "preprocessor_config.json cannot be followed: "),
        ({"size": 12, "rescale_factor": "1"}, "rescale_factor in .* must be a number: got '1'"),
        ({"size": {"height": "12", "width": 12}}, "size in .* must be height and width, .*: got {'height': '12', 'width': 12}"),
        ({"size": [12.0, 12]}, r"size in .* must be height and width, .*: got \[12.0, 12\]"),
    ],
)
def test_a_setting_that_is_not_supported_is_refused_by_name(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, fields)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((6, 6, 3), np.float32), "must be of bytes .*: got float32, shape .*; one that is normalized already"),
        (np.zeros((6, 6, 2), np.uint8), r"must have 1, 3 or 4 colours: got the shape \(6, 6, 2\)"),
        (7, "a picture must be a path, a Pillow image or an array of bytes: got int"),
        ([], "images must hold at least one picture"),
        (np.zeros((0, 5), np.uint8), r"the picture must be .*: it has no pixels: its size is \(5, 0\)"),
        (b"no picture", "the picture must be a picture that Pillow reads"),
        ([PICTURES[0], PICTURES[1]], r"all pictures must end in one size: got \(20, 33\) for the first and \(31, 18\) for num"),
    ],
    ids=["floats", "two colours", "a number", "none", "no pixels", "bytes", "two sizes"],
)
def test_what_is_no_picture(picture, message):
    with pytest.raises(ValueError, match=message):
        prepare_images(picture, ImageInput())


def published(folder, fields, config=VIT):
    params = init_params(make_model(config), jax.random.key(0))
    write_folder(folder, find_family("ViTForImageClassification"), config, params)
    if fields is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    return jaxllm.load(folder)


def test_a_published_model_classifies_a_file_and_goes_out_with_its_settings(tmp_path):
    m = published(tmp_path / "in", CASES["fast"])
    PIL.Image.fromarray(PICTURES[0]).save(tmp_path / "a.png")
    want = m(images=theirs(tmp_path / "in", PICTURES[:1])).logits
    np.testing.assert_allclose(m(images=tmp_path / "a.png").logits, want, atol=1e-5)
    np.testing.assert_allclose(m(images=PICTURES[0]).logits, want, atol=1e-5)
    ((label, probability),) = m.classify(str(tmp_path / "a.png"))
    assert label == ("cat", "dog")[int(want.argmax())] and probability == pytest.approx(float(jax.nn.softmax(want).max()))
    convert(tmp_path / "in", tmp_path / "ours", to="jaxllm")
    convert(tmp_path / "ours", tmp_path / "out")
    for folder in ("ours", "out"):
        assert jaxllm.load(tmp_path / folder).image_input == m.image_input
    np.testing.assert_allclose(theirs(tmp_path / "out", PICTURES), m.images(PICTURES), atol=1e-5)


@pytest.mark.parametrize("form", ["grey", "colours"])
def test_a_grey_model_goes_through_from_end_to_end(form, tmp_path):
    """Of a grey picture and of one in colours, which transformers gets in grey: it refuses it for such a model."""
    grey = dataclasses.replace(VIT, channels=1)
    fields = {"image_processor_type": "ViTImageProcessor", "size": 12, "image_mean": [0.4], "image_std": [0.3]}
    m = published(tmp_path / "in", fields, grey)
    colours = PIL.Image.fromarray(PICTURES[0])
    picture, theirs_is = (colours.convert("L"), colours.convert("L")) if form == "grey" else (colours, colours.convert("L"))
    picture.save(tmp_path / "a.png")
    pixels = theirs(tmp_path / "in", [np.asarray(theirs_is)])
    assert pixels.shape == (1, 12, 12, 1)
    for given in (picture, np.asarray(picture), tmp_path / "a.png"):
        np.testing.assert_allclose(m.images(given), pixels, atol=1e-5)
    np.testing.assert_allclose(m(images=picture).logits, m(images=pixels.transpose(0, 3, 1, 2)).logits, atol=1e-6)
    assert m.classify(picture)[0][0] in ("cat", "dog")
    convert(tmp_path / "in", tmp_path / "ours", to="jaxllm")
    convert(tmp_path / "ours", tmp_path / "out")
    np.testing.assert_allclose(theirs(tmp_path / "out", [np.asarray(theirs_is)]), pixels, atol=1e-6)
    with pytest.raises(ValueError, match="mean must have 3 elements"):
        theirs(tmp_path / "out", PICTURES[:1])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"image_processor_type": "CLIPImageProcessor"},
            "image_processor_type in .* must be ViTImageProcessor .*: got 'CLIPImagePro",
        ),
        ({"size": 12, "do_pad": True}, "do_pad in preprocessor_config.json must be one of False, None .*: got True"),
        ({"size": 12, "image_mean": [0.5]}, "image_mean in preprocessor_config.json must have 3 numbers"),
        ({"size": 14}, r"preprocessor_config.json makes pictures of \(14, 14\)"),
        ({"size": 12, "image_mean": None}, "image_mean in preprocessor_config.json must have a value"),
    ],
)
def test_settings_that_cannot_be_followed_leave_a_model_of_floats(fields, reason, tmp_path):
    with pytest.warns(UserWarning, match=f"/in takes no pictures, only arrays .*, since {reason}") as warned:
        m = published(tmp_path / "in", fields)
    assert len(warned) == 1 and m.image_input is None
    with pytest.warns(UserWarning, match="takes no pictures"):
        convert(tmp_path / "in", tmp_path / "ours", to="jaxllm")
    assert str(tmp_path) not in (tmp_path / "ours" / "model.json").read_text()
    with pytest.warns(UserWarning, match=f"/ours takes no pictures, only arrays .*, since {reason}") as warned:
        ours = jaxllm.load(tmp_path / "ours")
    assert len(warned) == 1
    PIL.Image.fromarray(PICTURES[0]).save(tmp_path / "a.png")
    floats = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)
    for folder, found in (("in", m), ("ours", ours)):
        said = rf"/{folder} takes no pictures, since {reason}.*; give it an array of floats \[B, 12, 12, 3\] that is normalized"
        for call in (found.images, found.classify, lambda images, model=found: model(images=images)):
            for picture in (PICTURES[0], PICTURES[0].astype(int), str(tmp_path / "a.png")):
                with pytest.raises(ValueError, match=said):
                    call(picture)
        np.testing.assert_array_equal(found(images=floats).logits, m(images=floats.transpose(0, 3, 1, 2)).logits)
        assert len(found.classify(floats)) == 2


@pytest.mark.parametrize("channels", [2, 4])
def test_a_model_of_other_colours_takes_floats_only(channels, tmp_path):
    config = dataclasses.replace(VIT, channels=channels)
    m = published(tmp_path / "without", None, config)
    with pytest.warns(UserWarning, match=f"since .*: a picture has one colour or three, and the model reads {channels}"):
        other = published(tmp_path / "with", {"image_processor_type": "ViTImageProcessor", "size": 12}, config)
    for found in (m, other):
        assert found.image_input is None and found(images=np.zeros((1, channels, 12, 12), np.float32)).logits.shape == (1, 2)
        with pytest.raises(ValueError, match=rf"give it an array of floats \[B, 12, 12, {channels}\] that is normalized"):
            found.classify(np.zeros((12, 12, channels), np.uint8))


def test_nested_lists_of_integers_are_not_taken_for_normalized(tmp_path):
    m = published(tmp_path / "in", {"image_processor_type": "ViTImageProcessor", "size": 12})
    with pytest.raises(ValueError, match="images as numbers must be floats that are normalized already: got int64"):
        m(images=np.zeros((1, 12, 12, 3), int).tolist())
    assert m(images=np.zeros((1, 12, 12, 3)).tolist()).logits.shape == (1, 2)


def test_a_model_that_does_not_say_how_takes_floats_only(tmp_path):
    m = published(tmp_path / "in", None)
    assert m.image_input is None and m(images=np.zeros((2, 12, 12, 3), np.float32)).logits.shape == (2, 2)
    with pytest.raises(ValueError, match=r"having no preprocessor_config.json: give it an array of floats \[B, 12, 12, 3\]"):
        m.classify("a.png")
    file = io.BytesIO()
    PIL.Image.fromarray(PICTURES[0]).save(file, "PNG")
    with pytest.raises(ValueError, match="does not say how a picture becomes its input"):
        m(images=file.getvalue())
