"""How a picture becomes what a model of images reads: its colours, its size, and its pixels normalized."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8

Filter = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """What is done to a picture, in this order: scaled, cut, (pixel x scale - mean) / std.

    Scaling is Pillow's, of 8-bit pixels, as that of the image processors of Hugging Face transformers
    (`ViTImageProcessorPil`, or `backend="pil"`); by torchvision theirs rounds differently.
    """

    size: Size | None = None
    """Height and width to scale to, whatever the picture's proportions."""
    shorter_side: int | None = None
    """Length to scale the shorter side to, keeping the proportions; in place of `size`."""
    crop: Size | None = None
    """Height and width to cut out of the middle; what lies beyond the picture is black."""
    resample: Filter = "bilinear"
    """Pillow's filter for scaling."""
    scale: float = 1 / 255
    """Factor on pixels, which are from 0 to 255."""
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    """What is taken from each colour after that; one number for a grey picture."""
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    """What each colour is then divided by."""

    def __post_init__(self) -> None:
        if self.size is not None and self.shorter_side is not None:
            raise ValueError(f"size and shorter_side exclude each other: got {self.size} and {self.shorter_side}")
        lengths = [*(self.size or ()), *(self.crop or ()), 1 if self.shorter_side is None else self.shorter_side]
        if any(length < 1 for length in lengths):
            raise ValueError(f"sizes must be at least 1: got {self.size}, {self.shorter_side} and {self.crop}")
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise ValueError(f"mean and std must have one number, or three, for each colour: got {self.mean} and {self.std}")
        if not all(number > 0 for number in self.std):
            raise ValueError(f"std must be positive: got {self.std}")

    @property
    def final_size(self) -> Size | None:
        """Height and width that every picture ends with; None where they depend on the picture."""
        return self.size if self.crop is None else self.crop


def prepare_images(images: Any, how: ImageInput) -> Float32[np.ndarray, "B height width channels"]:
    """A batch of pictures as the model reads them.

        prepare_images(["cat.png", PIL.Image.open("dog.jpg")], ImageInput(size=(224, 224)))

    Args:
      images: one or several of: a path, a Pillow image, an array of bytes [height, width], with colours last or first, which
        may be kept as longer integers. Files and Pillow images are turned upright; see `open_image`.

    Raises:
      ValueError: what is no picture, or pictures that end in different sizes.
    """
    pictures = list(images) if isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4 else [images]
    if not pictures:
        raise ValueError("images must hold at least one picture: got none")
    rows = [np.asarray(fit_image(open_image(picture, grey=len(how.mean) == 1), how)) for picture in pictures]
    other = next((number for number, row in enumerate(rows) if row.shape != rows[0].shape), None)
    if other is not None:
        raise ValueError(
            f"all pictures must end in one size: got {rows[0].shape[:2]} for the first and {rows[other].shape[:2]} for number "
            f"{other}, since nothing scales or cuts them to one; bring them to one size, or give them one by one"
        )
    pixels = np.stack(rows).reshape(len(rows), *rows[0].shape[:2], len(how.mean))
    scaled = (pixels * np.float64(how.scale)).astype(np.float32)
    return (scaled - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)


def open_image(source: Any, *, grey: bool = False, name: str = "the picture") -> Any:
    """A Pillow image in three colours or in grey, upright as its camera says, with transparent places in white.

    A Pillow image is turned as its file would be. So do `load_image` and the pipelines of transformers; their image processors
    turn files, and leave a Pillow image as it lies. Grey of 16 bits keeps its upper 8, as Pillow itself does with colours of 16
    bits; transformers cuts it off at 255. Pillow has it as "I;16", or as "I": the latter is taken to have 8 bits where no
    pixel is above 255.

    Args:
      source: a path, the bytes of a file, a Pillow image, or an array of bytes.
      name: what messages call it where it has no path.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no picture, or too large a one; says why.
    """
    import PIL.Image
    import PIL.ImageOps

    place = source if isinstance(source, str | Path) else name
    if not isinstance(source, str | Path | bytes | PIL.Image.Image):
        if not hasattr(source, "__array__"):
            raise ValueError(f"a picture must be a path, a Pillow image or an array of bytes: got {type(source).__name__}")
        source = PIL.Image.fromarray(_pixels(np.asarray(source)))
    try:
        image = PIL.ImageOps.exif_transpose(source) if isinstance(source, PIL.Image.Image) else decode(source)
        return _eight_bits(image).convert("L" if grey else "RGB")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:  # the last of one not yet read
        raise ValueError(f"{place} must be a picture that Pillow reads: {error}") from error


def decode(file: str | Path | bytes, formats: tuple[str, ...] | None = None) -> Any:
    """The Pillow image in a file or its bytes, in its own colours, upright.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: why it cannot be read; the file is not named.
    """
    import PIL.Image
    import PIL.ImageOps

    try:
        with PIL.Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=formats) as image:
            limit = PIL.Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:  # no pixel is read yet
                raise PIL.Image.DecompressionBombError
            return PIL.ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"it has more than {PIL.Image.MAX_IMAGE_PIXELS:,} pixels, where Pillow suspects an attack; make it smaller, "
            "or set PIL.Image.MAX_IMAGE_PIXELS where you trust it"
        ) from error
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all three, of a damaged file
        raise ValueError(str(error) or "it is damaged") from error


def _eight_bits(image: Any) -> Any:
    """With 8 bits a colour, and white where it is transparent."""
    import PIL.Image

    if 0 in image.size:
        raise ValueError(f"it has no pixels: its size is {image.size}")
    if image.mode == "F":
        raise ValueError("its pixels are floats, of which nobody says what is white; bring them to whole numbers from 0 to 255")
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        if not 0 <= pixels.min() <= pixels.max() < 2**16:
            raise ValueError(f"grey that is kept as integers must have 16 bits, 0..65535: got {pixels.min()}..{pixels.max()}")
        bits = 8 if image.mode == "I" and pixels.max() < 2**8 else 16
        if "transparency" in image.info:
            pixels = np.where(pixels == image.info["transparency"], 2**bits - 1, pixels)
        return PIL.Image.fromarray((pixels >> (bits - 8)).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image


def _pixels(array: np.ndarray) -> UInt8[np.ndarray, "..."]:
    """As Pillow wants them: colours last, and no axis for a single one."""
    if array.dtype.kind not in "iu" or array.ndim not in (2, 3):
        raise ValueError(
            "an array with a picture must be of bytes (whole numbers from 0 to 255), [height, width] or with colours: got "
            f"{array.dtype}, shape {array.shape}; one that is normalized already goes to the model as it is"
        )
    if array.size and not 0 <= array.min() <= array.max() <= 255:
        raise ValueError(
            f"an array with a picture must be of numbers from 0 to 255: got {array.min()}..{array.max()}; scale it"
        )
    array = array.astype(np.uint8, copy=False)
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4):
        raise ValueError(f"an array with a picture must have 1, 3 or 4 colours: got the shape {array.shape}")
    return array[:, :, 0] if array.ndim == 3 and array.shape[-1] == 1 else array


def fit_image(image: Any, how: ImageInput) -> UInt8[np.ndarray, "..."]:
    """A Pillow image scaled and cut: [height, width, 3], or [height, width] of one in grey."""
    import PIL.Image

    size = how.size
    if how.shorter_side is not None:
        short, long = sorted(image.size)
        sides = how.shorter_side, int(how.shorter_side * long / short)
        size = sides if image.height <= image.width else sides[::-1]
    if size is not None:
        image = image.resize(size[::-1], PIL.Image.Resampling[how.resample.upper()])
    pixels = np.asarray(image)
    if how.crop is None:
        return pixels
    for axis, length in enumerate(how.crop):
        pixels = _middle(pixels, axis, length)
    return pixels


def _middle(pixels: UInt8[np.ndarray, "..."], axis: int, length: int) -> UInt8[np.ndarray, "..."]:
    """The middle of an axis, with black on both sides where it is too short."""
    start = (pixels.shape[axis] - length) // 2
    if start >= 0:
        return pixels.take(range(start, start + length), axis)
    widths = [(0, 0)] * pixels.ndim
    widths[axis] = (-start, length - pixels.shape[axis] + start)
    return np.pad(pixels, widths)


def is_picture(images: Any) -> bool:
    """Whether it is what `prepare_images` takes, rather than an array that is normalized already."""
    import PIL.Image

    if isinstance(images, Sequence) and not isinstance(images, str | bytes):
        return bool(images) and is_picture(images[0])
    if isinstance(images, str | Path | bytes | PIL.Image.Image):
        return True
    return hasattr(images, "__array__") and np.asarray(images).dtype.kind in "biu"
