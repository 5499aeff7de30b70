"""Image classification: name the class of an image, which training shows shifted, mirrored, and mixed with another."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float32, Int64, UInt8, UInt64

from jaxllm.data import Batch, ImageDataConfig, Tokenizer
from jaxllm.data.image_input import ImageInput
from jaxllm.data.images import ImageData, ImageSource, table_input
from jaxllm.data.rows import Rows
from jaxllm.models import Model, ModelConfig, VisionConfig, VisionTransformer
from jaxllm.training.cross_entropy import LossConfig, LossSums, cross_entropy
from jaxllm.training.loss import Batch as DeviceBatch
from jaxllm.training.loss import Loss
from jaxllm.training.objectives.examples import noise_keys
from jaxllm.training.objectives.noise import uniforms
from jaxllm.training.objectives.objective import AnyData, AnyDataConfig, Field, Reports

Color = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ImageClassification:
    """Name the class of an image."""

    reports: ClassVar[Reports] = Reports(unit="images", perplexity=False, accuracy=True)
    metrics: ClassVar[Mapping[str, Literal["lowest", "highest"]]] = {
        "accuracy": "highest",
        "macro_f1": "highest",
        "matthews": "highest",
    }

    crop_padding: int = 0
    """Train on a random cut of the image with a black border of so many pixels; 0 leaves it as it is."""
    flip: bool = True
    """Train on every other image mirrored, left to right."""
    mixup: float = 0.0
    """Mix each image, and its label, with another, in a proportion of the distribution Beta(a, a) (arXiv:1710.09412); 0 mixes
    none. With cutmix, too, each image gets one of the two."""
    cutmix: float = 0.0
    """Put a rectangle of another image into each, its area of the distribution Beta(a, a) (arXiv:1905.04899); 0 puts none."""
    mean: Color = (0.5, 0.5, 0.5)
    """Mean of each colour, from 0 to 1, that the model's input is less."""
    std: Color = (0.5, 0.5, 0.5)
    """Standard deviation of each colour that it is divided by."""

    def __post_init__(self) -> None:
        for name in ("crop_padding", "mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(f"objective.{name} must be at least 0: got {getattr(self, name)}")
        if min(self.std) <= 0:
            raise ValueError(f"objective.std must be positive: got {self.std}")

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        if not isinstance(data, ImageDataConfig):
            raise ValueError("objective ImageClassification reads images: got text as data; use an ImageDataConfig")
        if not isinstance(model, VisionConfig):
            raise ValueError(f"objective ImageClassification needs a VisionConfig as model: got {type(model).__name__}")
        if model.image_size != data.image_size or model.channels != 3:
            raise ValueError(
                "model and data must have images of one size, in three colours: got "
                f"model.image_size={model.image_size}, model.channels={model.channels} and data.image_size={data.image_size}"
            )

    def headed(self, model: ModelConfig) -> ModelConfig:
        """With a new head, whose labels the data tells."""
        return dataclasses.replace(model, num_labels=None, label_names=None) if isinstance(model, VisionConfig) else model

    def image_input(self, data: ImageDataConfig) -> ImageInput:
        """How a picture becomes what the model is evaluated with, which the augmentations leave alone."""
        return dataclasses.replace(table_input(data.image_size), scale=1 / 255, mean=self.mean, std=self.std)

    def vocab_size(self, tokenizer: Tokenizer, data: AnyDataConfig) -> int:
        return 0

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        assert isinstance(data, ImageDataConfig)
        image = Field((data.image_size, data.image_size, 3), np.uint8)
        fields = {"images": image, "labels": Field(()), "loss_weights": Field((), np.float32)}
        return fields | ({"other_labels": Field(()), "other_share": Field((), np.float32)} if self.mixes else {})

    @property
    def mixes(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def tokens(self, data: AnyDataConfig) -> int:
        return 1

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> Rows:
        assert isinstance(data, ImageData)
        return Augmented(data.rows(split, seed=seed), self)

    def normalized(self, images: Array) -> Array:
        """Bytes [B, height, width, channels] as the model reads them."""
        pixels = images.astype(jnp.float32) / 255.0
        return (pixels - jnp.array(self.mean)[None, None, None]) / jnp.array(self.std)[None, None, None]

    def make_loss(self, model: Model, config: LossConfig) -> Loss:
        assert isinstance(model, VisionTransformer)

        def loss(params: Any, batch: DeviceBatch, dropout_key: Array | None) -> LossSums:
            pixels = self.normalized(batch["images"])
            logits = model.apply({"params": params}, pixels, dropout_key=dropout_key).logits[:, None]  # type: ignore[union-attr]
            labels, weights = batch["labels"][:, None], batch["loss_weights"][:, None]
            if "other_labels" not in batch:
                return cross_entropy(logits, labels, weights, config)
            share = batch["other_share"][:, None]
            first = cross_entropy(logits, labels, weights * (1 - share), config)
            other = cross_entropy(logits, batch["other_labels"][:, None], weights * share, config)
            return LossSums(*(a + b for a, b in zip(first, other, strict=True)))

        return loss


@dataclass(frozen=True)
class Augmented:
    """Images by global position; where the order has a seed, each changed by a random key of its position."""

    base: ImageSource
    objective: ImageClassification

    @property
    def seed(self) -> int | None:
        return self.base.seed

    @property
    def rows_per_epoch(self) -> int:
        return self.base.rows_per_epoch

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.base.fingerprint} {self.objective!r}".encode()).hexdigest()[:24]

    def for_evaluation(self) -> "Augmented":
        return dataclasses.replace(self, base=self.base.for_evaluation())

    def describe(self, position: int) -> list[str]:
        return self.base.describe(position)

    def rows(self, positions: Int64[np.ndarray, " B"]) -> Batch:
        batch = self.base.rows(positions)
        objective = self.objective
        if self.seed is None:
            zeros = np.zeros_like(batch["labels"])
            return batch | ({"other_labels": zeros, "other_share": zeros.astype(np.float32)} if objective.mixes else {})
        keys = noise_keys(self.seed, positions)
        images = augment(batch["images"], keys, objective)
        if not objective.mixes:
            return batch | {"images": images}
        table, pick = self.base.table, uniforms(keys, 8, 1)[:, 0]
        others = np.floor(pick * self.rows_per_epoch).astype(np.int64)
        other = augment(table.images[others], keys ^ np.uint64(1), objective)
        images, share = mix_images(images, other, keys, objective)
        return batch | {"images": images, "other_labels": table.labels[others], "other_share": share}


def augment(
    images: UInt8[np.ndarray, "B size size 3"], keys: UInt64[np.ndarray, " B"], objective: ImageClassification
) -> UInt8[np.ndarray, "B size size 3"]:
    """Images shifted and mirrored."""
    numbers = uniforms(keys, 0, 3)
    size, border = images.shape[1], objective.crop_padding
    top, left = np.floor(numbers[:, :2] * (2 * border + 1)).astype(np.int64).T
    down, across = top[:, None] + np.arange(size), left[:, None] + np.arange(size)
    if objective.flip:
        across = np.where(numbers[:, 2:] < 0.5, across[:, ::-1], across)
    padded = np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)))
    return padded[np.arange(len(images))[:, None, None], down[:, :, None], across[:, None, :]]


def mix_images(
    images: UInt8[np.ndarray, "B size size 3"],
    others: UInt8[np.ndarray, "B size size 3"],
    keys: UInt64[np.ndarray, " B"],
    objective: ImageClassification,
) -> tuple[UInt8[np.ndarray, "B size size 3"], Float32[np.ndarray, " B"]]:
    """Images mixed with others, and the share that the other has in each."""
    from scipy.special import betaincinv

    size = images.shape[1]
    drawn, side, down, across = uniforms(keys, 9, 4).T
    cuts = side < (objective.cutmix > 0) / ((objective.cutmix > 0) + (objective.mixup > 0))
    alpha = np.where(cuts, objective.cutmix, objective.mixup)
    share = betaincinv(alpha, alpha, drawn)
    half = np.sqrt(share) / 2
    pixel = (np.arange(size) + 0.5) / size
    inside = (np.abs(pixel - down[:, None]) < half[:, None])[:, :, None] & (np.abs(pixel - across[:, None]) < half[:, None])[
        :, None, :
    ]
    share = np.where(cuts, inside.mean(axis=(1, 2)), share)
    of_other = np.where(cuts[:, None, None], inside, share[:, None, None])[..., None]
    mixed = images * (1 - of_other) + others * of_other
    return np.round(mixed).astype(np.uint8), share.astype(np.float32)
