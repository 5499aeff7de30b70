"""preprocessor_config.json both ways: how pictures become the input of a ViT or DeiT."""

import json
from pathlib import Path
from typing import Any, get_args

from jaxllm.data.image_input import Filter, ImageInput, Size
from jaxllm.interchange.config_reader import ConfigReader, read_fields
from jaxllm.models import VisionConfig

FILE = "preprocessor_config.json"
_DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": {"size": 224, "resample": 2, "do_center_crop": False, "crop_size": None},
    "DeiT": {"size": 256, "resample": 3, "do_center_crop": True, "crop_size": 224},
}
"""What a class takes where the file says nothing."""
_ENDINGS = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
_FILTERS: tuple[Filter, ...] = get_args(Filter)
"""In the order of Pillow's numbers."""
_UNREAD = (
    "processor_class", "data_format", "input_data_format", "device", "disable_grouping", "return_tensors",
    "_valid_processor_keys", "default_to_square",
)  # fmt: skip
"""How the result is handed over, which does not change its numbers."""


def read_image_input(folder: Path, config: VisionConfig) -> ImageInput | None:
    """How pictures become the model's input; None where the folder does not say it.

    Raises:
      ValueError: settings that are not supported, or that end in pictures of another size than the model reads.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    if config.channels not in (1, 3):
        raise ValueError(f"{path} cannot be followed: a picture has one colour or three, and the model reads {config.channels}")
    reader = ConfigReader(read_fields(path), path)
    try:
        found = _read(reader, config)
    except (ValueError, TypeError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path} cannot be followed: {error}") from error
    reader.finish()
    _check_size(found, config, path)
    return found


def _read(reader: ConfigReader, config: VisionConfig) -> ImageInput:
    defaults = _DEFAULTS[_kind(reader, config)]
    reader.ignore(*_UNREAD)
    reader.must_be("do_pad", False, None)
    reader.must_be("do_convert_rgb", True, False, None)
    scaled, cut = _said(reader, "do_resize", True), _said(reader, "do_center_crop", defaults["do_center_crop"])
    rescaled, normalized = _said(reader, "do_rescale", True), _said(reader, "do_normalize", True)
    for name, done in {
        **dict.fromkeys(("size", "resample"), scaled),
        "crop_size": cut,
        "rescale_factor": rescaled,
        **dict.fromkeys(("image_mean", "image_std"), normalized),
    }.items():
        if done and reader.fields.get(name, "absent") is None:
            raise ValueError(
                f"{name} in {reader.source} must have a value: got null; correct it, or take it out for the default"
            )
    resample = reader.must_be("resample", defaults["resample"], *range(len(_FILTERS)), None)
    size, shorter_side = _size(reader, "size", defaults["size"]) if scaled else (None, None)
    crop, only_short = _size(reader, "crop_size", defaults["crop_size"]) if cut else (None, None)
    for name in ("size", "crop_size"):  # where nothing is scaled or cut
        reader.ignore(name)
    if only_short is not None:
        raise ValueError(
            f"crop_size in {reader.source} must have height and width: got {reader.read('crop_size')!r}; correct it"
        )
    scale = reader.read("rescale_factor", 1 / 255)
    mean, std = _colors(reader, config.channels, normalized)
    kind = _FILTERS[defaults["resample"] if resample is None else resample]
    scale = float(scale) if rescaled else 1.0
    return ImageInput(size=size, shorter_side=shorter_side, crop=crop, resample=kind, scale=scale, mean=mean, std=std)


def write_image_input(folder: Path, found: ImageInput, config: VisionConfig) -> None:
    """Writes the file, with which transformers' AutoImageProcessor does the same to pictures in the model's own colours.

    It scales equally by Pillow; torchvision, which it takes where that is installed, may round to the next of the 256 levels.
    Where a model reads grey, theirs refuses a picture in colours, and so do their pipelines any picture; ours makes it grey.
    """
    fields: dict[str, Any] = {
        "image_processor_type": f"{'DeiT' if config.distillation_token else 'ViT'}ImageProcessor",
        **({"do_convert_rgb": True} if config.channels == 3 else {}),
        "do_resize": found.size is not None or found.shorter_side is not None,
        "resample": _FILTERS.index(found.resample),
        "do_center_crop": found.crop is not None,
        "do_rescale": True,
        "rescale_factor": found.scale,
        "do_normalize": True,
        "image_mean": list(found.mean),
        "image_std": list(found.std),
    }
    if found.size is not None:
        fields["size"] = dict(zip(("height", "width"), found.size, strict=True))
    elif found.shorter_side is not None:
        fields["size"] = {"shortest_edge": found.shorter_side}
    if found.crop is not None:
        fields["crop_size"] = dict(zip(("height", "width"), found.crop, strict=True))
    (folder / FILE).write_text(json.dumps(fields, indent=2) + "\n", "utf-8")


def _kind(reader: ConfigReader, config: VisionConfig) -> str:
    """ViT or DeiT; where the file does not say it, by the model."""
    named = reader.read("image_processor_type", None), reader.read("feature_extractor_type", None)
    name = next((each for each in named if each is not None), None)
    if name is None:
        return "DeiT" if config.distillation_token else "ViT"
    kinds = [kind for kind in _DEFAULTS if name in [kind + ending for ending in _ENDINGS]]
    if not kinds:
        raise ValueError(
            f"image_processor_type in {reader.source} must be ViTImageProcessor or DeiTImageProcessor: got {name!r}, which may "
            "do other things to pictures"
        )
    return kinds[0]


def _said(reader: ConfigReader, name: str, default: bool) -> bool:
    """Whether it is done; as in transformers, a null says no."""
    return bool(reader.read(name, default))


def _size(reader: ConfigReader, name: str, default: int | None) -> tuple[Size | None, int | None]:
    """Height and width, or the length of the shorter side; a single number is both height and width."""
    value = reader.read(name, None)
    value = default if value is None else value
    told = value if isinstance(value, dict) else dict.fromkeys(("height", "width"), value)
    if isinstance(value, list) and len(value) == 2:
        told = dict(zip(("height", "width"), value, strict=True))
    told = {key: length for key, length in told.items() if length is not None}
    if all(type(length) is int for length in told.values()):
        if told.keys() == {"height", "width"}:
            return (told["height"], told["width"]), None
        if told.keys() == {"shortest_edge"}:
            return None, told["shortest_edge"]
    raise ValueError(
        f"{name} in {reader.source} must be height and width, or shortest_edge alone, to be computed here: got {value!r}"
    )


def _colors(reader: ConfigReader, channels: int, normalized: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each colour."""
    found = []
    for name, neutral in (("image_mean", 0.0), ("image_std", 1.0)):
        value = reader.read(name, None)
        value = 0.5 if value is None else value
        values = tuple(float(x) for x in value) if isinstance(value, list) else (float(value),) * channels
        if len(values) != channels:
            raise ValueError(f"{name} in {reader.source} must have {channels} numbers, one a colour: got {value!r}")
        found.append(values if normalized else (neutral,) * channels)
    return found[0], found[1]


def _check_size(found: ImageInput, config: VisionConfig, path: Path) -> None:
    wanted = (config.image_size, config.image_size)
    if found.final_size is None and found.shorter_side is not None:
        raise ValueError(
            f"size in {path} has shortest_edge only, so pictures end in any size: the model reads {wanted}; set do_center_crop "
            "and crop_size"
        )
    if found.final_size not in (None, wanted):
        raise ValueError(f"{path} makes pictures of {found.final_size}: the model reads {wanted}; correct size or crop_size")
