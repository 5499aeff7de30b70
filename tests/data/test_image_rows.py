"""Rows of an image set that cannot be trained on, and features under other names."""

import io

import numpy as np
import PIL.Image
import pytest

from jaxllm.data import ImageDataConfig, open_images
from jaxllm.data.tfds_builder import Image, Label, write_set


def picture(size=(6, 6), color=(9, 9, 9), **options):
    file = io.BytesIO()
    PIL.Image.new("RGB", size, color).save(file, "PNG", **options)
    return file.getvalue()


def opened(folder, rows, features=None, **config):
    features = features or {"id": None, "image": Image(), "label": Label(("cat", "dog"))}
    write_set("pets", {"train": rows}, folder, description="", features=features)
    settings = {"dataset": "pets", "data_dir": str(folder), "image_size": 6, "validation_split": None, "test_split": None}
    return open_images(ImageDataConfig(**settings, **config), seed=0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXLLM_CACHE", str(tmp_path / "cache"))


def test_a_label_below_0_is_refused_with_its_row(tmp_path):
    rows = [("a.png", picture(), "dog"), ("b.png", picture(), -1), ("c.png", picture(), "cat")]
    data = opened(tmp_path, rows)
    with pytest.raises(
        ValueError, match=r"label of image 1 \(b.png\) of train in .*pets.* must be one of the 2 classes, 0..1: got -1"
    ):
        data.rows("train")
    assert not list((tmp_path / "cache").rglob("labels.npy"))


def test_a_label_beyond_the_classes_is_refused_with_its_row(tmp_path):
    data = opened(tmp_path, [("a.png", picture(), "cat"), ("b.png", picture(), "dog")])
    (names,) = data.data_set.folder.glob("label.labels.txt")
    names.write_text("cat\n")  # as where the files of two versions of a set were mixed
    with pytest.raises(ValueError, match=r"label of image 1 \(b.png\) of train .* one of the 1 classes, 0..0: got 1"):
        data.rows("train")


def test_features_under_other_names(tmp_path):
    features = {"photo": Image(), "kind": Label(("cat", "dog"))}
    data = opened(tmp_path, [(picture(), "cat"), (picture(), "dog")], features, image_feature="photo", label_feature="kind")
    rows = data.rows("train")
    assert rows.rows(np.arange(2))["labels"].tolist() == [0, 1]
    assert rows.describe(1) == ["train image 1"] and rows.for_evaluation().describe(0) == ["train image 0"]


def test_names_of_rows_with_an_image_feature_of_another_name(tmp_path):
    features = {"id": None, "photo": Image(), "label": Label(("cat", "dog"))}
    data = opened(tmp_path, [("a.png", picture(), "cat")], features, image_feature="photo")
    assert data.rows("train").describe(0) == ["a.png"]


def test_a_damaged_picture_is_named(tmp_path):
    data = opened(tmp_path, [("a.png", picture(), "cat"), ("b.png", picture((64, 64))[:90], "dog")])
    with pytest.raises(
        ValueError, match=r"image 1 \(b.png\) of train in .* must be a picture that Pillow reads: .*; build the set"
    ):
        data.rows("train")
