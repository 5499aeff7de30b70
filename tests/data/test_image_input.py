"""Pictures opened: large ones, turned ones, those of 16 bits, arrays of longer integers."""

import io
import warnings

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from jaxllm.data.image_input import ImageInput, decode, is_picture, open_image, prepare_images

PLAIN = ImageInput(scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
PICTURE = np.random.default_rng(0).integers(0, 256, (5, 8, 3), np.uint8)
DEEP = np.array([[0, 255, 256, 1000], [32768, 65280, 65534, 65535]], np.uint16)


def saved(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize(("limit", "warned"), [(39, 2), (19, 0)], ids=["Pillow warns", "Pillow refuses"])
def test_a_picture_that_is_too_large_is_refused_by_name(limit, warned, tmp_path, monkeypatch):
    PIL.Image.fromarray(PICTURE).save(tmp_path / "large.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(
            ValueError, match=f"/large.png must be a picture that Pillow reads: it has more than {limit} pixels"
        ):
            open_image(tmp_path / "large.png")
        with pytest.raises(ValueError, match="^image 3 of train must be .* make it smaller, or set PIL.Image.MAX_IMAGE_PIXELS"):
            open_image((tmp_path / "large.png").read_bytes(), name="image 3 of train")
    assert [each.category for each in told] == [PIL.Image.DecompressionBombWarning] * warned
    with pytest.raises(ValueError, match=f"it has more than {limit} pixels"):  # where warnings are errors, as in these tests
        open_image(tmp_path / "large.png")
    for enough in (40, None):
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", enough)
        np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "large.png")), PICTURE)


def test_opening_leaves_the_warnings_of_other_threads_alone(monkeypatch):
    """catch_warnings changes them for the whole process, for good where two threads end in another order than they began."""
    before, within, plain = list(warnings.filters), [], PIL.Image.open
    monkeypatch.setattr(
        PIL.Image, "open", lambda *args, **options: within.append(list(warnings.filters)) or plain(*args, **options)
    )
    decode(saved(PIL.Image.fromarray(PICTURE)))
    assert within == [before]


@pytest.mark.parametrize(
    ("image", "form"),
    [
        (PIL.Image.fromarray(DEEP), "PNG"),
        (PIL.Image.fromarray(DEEP), "TIFF"),
        (PIL.Image.fromarray(DEEP.astype(">u2")), "TIFF"),
        (PIL.Image.fromarray(DEEP.astype(np.int32)), "TIFF"),
    ],
    ids=["png", "tiff", "tiff, large end first", "32 bits"],
)
def test_grey_of_16_bits_keeps_its_upper_8(image, form):
    data = saved(image, form)
    for source in (image, data, decode(data)):
        np.testing.assert_array_equal(np.asarray(open_image(source, grey=True)), DEEP // 256)
        np.testing.assert_array_equal(prepare_images(source, PLAIN)[0], np.repeat(DEEP[..., None] // 256, 3, axis=-1))


def test_transparent_grey_of_16_bits_is_white():
    found = np.asarray(open_image(saved(PIL.Image.fromarray(DEEP), transparency=1000), grey=True))
    np.testing.assert_array_equal(found, [[0, 0, 1, 255], [128, 255, 255, 255]])


def test_integers_without_a_length_have_8_bits_where_they_fit():
    grey = PIL.Image.fromarray(PICTURE[..., 0])
    np.testing.assert_array_equal(np.asarray(open_image(grey.convert("I"), grey=True)), PICTURE[..., 0])
    deep = PIL.Image.fromarray(PICTURE[..., 0].astype(np.uint16))
    assert deep.mode == "I;16" and not np.asarray(open_image(deep, grey=True)).any()
    see_through = PIL.Image.fromarray(np.array([[7, 9]], np.int32))
    see_through.info["transparency"] = 7
    np.testing.assert_array_equal(np.asarray(open_image(see_through, grey=True)), [[255, 9]])


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.array([[0, 65536]], np.int32), r"the picture must be .* integers must have 16 bits, 0..65535: got 0..65536"),
        (np.array([[-1, 5]], np.int32), "must have 16 bits, 0..65535: got -1..5"),
        (np.array([[0.0, 0.5]], np.float32), "pixels are floats, of which nobody says what is white"),
    ],
)
def test_grey_of_an_unknown_range_is_refused(pixels, message):
    image = PIL.Image.fromarray(pixels)
    with pytest.raises(ValueError, match=message):
        open_image(image)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])  # Pillow itself turns a TIFF
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pillow_image_is_turned_as_its_file(orientation, form, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{form.lower()}"
    PIL.Image.fromarray(PICTURE).save(path, exif=exif)
    with PIL.Image.open(path) as image:
        lies = np.asarray(image.convert("RGB"))
        given = np.asarray(open_image(image))
        assert image.size == (8, 5) and image.getexif()[0x0112] == orientation  # the caller's own is left alone
    upright = {1: lies, 2: lies[:, ::-1], 3: np.rot90(lies, 2), 4: lies[::-1]}
    upright |= {5: lies.swapaxes(0, 1), 6: np.rot90(lies, -1), 7: np.rot90(lies, 2).swapaxes(0, 1), 8: np.rot90(lies)}
    np.testing.assert_array_equal(given, upright[orientation])
    np.testing.assert_array_equal(np.asarray(open_image(path)), given)


def test_a_damaged_pillow_image_is_refused():
    image = PIL.Image.open(io.BytesIO(saved(PIL.Image.fromarray(PICTURE))[:-40]))
    with pytest.raises(ValueError, match="the picture must be a picture that Pillow reads: "):
        open_image(image)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.int32, np.int64, np.uint64, ">i4"])
def test_longer_integers_are_taken_as_bytes(dtype):
    few = PICTURE // 2
    for array in (few.astype(dtype), few.astype(dtype).transpose(2, 0, 1), few.astype(dtype)[None]):
        assert is_picture(array) and is_picture([array])
        np.testing.assert_array_equal(prepare_images(array, PLAIN)[0], few)
    np.testing.assert_array_equal(prepare_images(jnp.asarray(PICTURE, jnp.int32), PLAIN)[0], PICTURE)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((2, 2), 256), r"must be of numbers from 0 to 255: got 256..256; scale it"),
        (np.array([[-1, 5]]), "must be of numbers from 0 to 255: got -1..5"),
        (np.ones((2, 2), bool), r"must be of bytes \(whole numbers from 0 to 255\), .*: got bool"),
    ],
)
def test_other_integers_are_refused(array, message):
    assert is_picture(array)
    with pytest.raises(ValueError, match=f"^an array with a picture {message}"):
        prepare_images(array, PLAIN)


def test_what_is_normalized_is_no_picture():
    for dtype in (np.float16, np.float32, np.float64, jnp.bfloat16):
        assert not is_picture(jnp.zeros((1, 4, 4, 3), dtype) if dtype is jnp.bfloat16 else np.zeros((1, 4, 4, 3), dtype))
