import numpy as np
import pytest

from jaxllm.models import TransformerConfig
from jaxllm.training import LossConfig
from jaxllm.training.objectives import ImageClassification
from jaxllm.training.objectives.examples import noise_keys
from jaxllm.training.objectives.image_classification import augment, mix_images
from tests.training.objectives.battery import VISION

KEYS = noise_keys(0, np.arange(4000))


def test_cuts_and_mirrors():
    """Every shift up to the border as often as any other, half of the images mirrored, black where nothing was."""
    image = np.arange(1, 1 + 4 * 4 * 3, dtype=np.uint8).reshape(1, 4, 4, 3)
    out = augment(np.repeat(image, 4000, axis=0), KEYS, ImageClassification(crop_padding=1))
    padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)))
    wanted = {}
    for top in range(3):
        for left in range(3):
            cut = padded[top : top + 4, left : left + 4]
            wanted[cut.tobytes()] = wanted[cut[:, ::-1].tobytes()] = 0
    for one in out:
        wanted[one.tobytes()] += 1
    assert len(wanted) == 18 and np.abs(np.array([*wanted.values()]) - 4000 / 18).max() < 5 * (4000 / 18) ** 0.5
    plain = augment(image, KEYS[:1], ImageClassification(flip=False))
    assert (plain == image).all()


def test_mixup_is_the_weighted_mean():
    ones, others = np.full((4000, 2, 2, 3), 100, np.uint8), np.full((4000, 2, 2, 3), 200, np.uint8)
    mixed, share = mix_images(ones, others, KEYS, ImageClassification(mixup=0.4))
    assert np.abs(mixed - (100 + 100 * share)[:, None, None, None]).max() <= 0.51
    assert abs(share.mean() - 0.5) < 0.03 and np.var(share) == pytest.approx(1 / (4 * 1.8), rel=0.05)  # of Beta(0.4, 0.4)


def test_cutmix_counts_the_pixels():
    ones, others = np.zeros((4000, 16, 16, 3), np.uint8), np.ones((4000, 16, 16, 3), np.uint8)
    mixed, share = mix_images(ones, others, KEYS, ImageClassification(cutmix=1.0))
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), share, atol=1e-6)
    rows, columns = mixed[..., 0].any(axis=2).sum(axis=1), mixed[..., 0].any(axis=1).sum(axis=1)
    np.testing.assert_allclose(rows * columns / 256, share, atol=1e-6)  # one rectangle
    both = mix_images(ones, others, KEYS, ImageClassification(cutmix=1.0, mixup=1.0))[0]
    rectangles = np.array([set(np.unique(image)) <= {0, 1} for image in both])
    assert rectangles.all()  # of these images rounding leaves no third value, so the share tells nothing
    assert (both != mixed).any()


def test_evaluation_sees_the_images_as_they_are(open_pictures):
    data = open_pictures()
    objective = ImageClassification(crop_padding=2, mixup=0.3)
    rows = objective.rows(data, VISION, "train", seed=0).for_evaluation().rows(np.arange(40))
    assert (rows["images"] == data.rows("train").table.images).all() and not rows["other_share"].any()
    assert (objective.rows(data, VISION, "train", seed=0).rows(np.arange(40))["images"] != rows["images"]).any()


def test_other_images_come_with_their_labels(open_pictures):
    data = open_pictures()
    source = ImageClassification(flip=False, mixup=1.0).rows(data, VISION, "train", seed=0)
    batch, table = source.rows(np.arange(200)), source.base.table
    own = source.base.rows(np.arange(200))["images"]
    share = batch["other_share"][:, None, None, None]
    candidates = own[:, None] * (1 - share[:, None]) + table.images[None] * share[:, None]
    other = np.abs(candidates - batch["images"][:, None]).max(axis=(2, 3, 4)).argmin(axis=1)
    far = batch["other_share"] > 0.05
    assert (table.labels[other] == batch["other_labels"])[far].all() and far.sum() > 150


def test_what_cannot_be(open_pictures, open_set):
    config = open_pictures().config
    with pytest.raises(ValueError, match="needs a VisionConfig as model: got TransformerConfig"):
        ImageClassification().check(TransformerConfig(), config, LossConfig())
    with pytest.raises(ValueError, match="reads images: got text as data"):
        ImageClassification().check(VISION, open_set().config, LossConfig())
    with pytest.raises(ValueError, match="objective.cutmix must be at least 0: got -1"):
        ImageClassification(cutmix=-1.0)
