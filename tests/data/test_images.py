import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from jaxllm.cli.data import run
from jaxllm.data import ImageDataConfig, open_images
from jaxllm.data.build_images import build_image_set
from jaxllm.data.splits import SplitConfig
from tests.data.conftest import unchecked


def encoded(color: tuple[int, int, int], size=(6, 6), kind="PNG") -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", size, color).save(file, kind)
    return file.getvalue()


COLORS = {"red": (255, 0, 0), "blue": (0, 0, 255)}
FILES = {f"train/{name}/{i}.png": encoded((r, i, b)) for name, (r, _, b) in COLORS.items() for i in range(10)}


@pytest.fixture(params=["folder", "tar.gz", "zip"])
def source(request, tmp_path: Path) -> Path:
    if request.param == "folder":
        for name, data in FILES.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
        (tmp_path / "train" / "notes.txt").write_text("not an image")
        return tmp_path / "train"
    path = tmp_path / f"train.{request.param}"
    if request.param == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in FILES.items():
                archive.writestr(name, data)
        return path
    with tarfile.open(path, "w:gz") as archive:
        for name, data in FILES.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_folders_and_archives_of_class_folders(source: Path, tmp_path: Path):
    report = build_image_set("colors", [source], data_dir=tmp_path / "sets", split=SplitConfig(validation_fraction=0.2))
    assert {part: count for part, (count, _) in report.splits.items()} == {"train": 15, "validation": 4, "test": 1}
    config = ImageDataConfig(dataset="colors", data_dir=str(tmp_path / "sets"), image_size=6)
    data = open_images(config, seed=0)
    assert data.label_names == ("blue", "red") and data.test_split == "test"
    rows = data.rows("train", seed=3)
    batch = rows.rows(np.arange(15))
    assert batch["images"].shape == (15, 6, 6, 3) and batch["images"].dtype == np.uint8
    reds = batch["labels"] == 1
    assert (batch["images"][reds][..., 0] == 255).all() and (batch["images"][~reds][..., 2] == 255).all()
    # Each image once an epoch, in another order in the next.
    other = rows.rows(np.arange(15, 30))
    marks = [batch["images"][:, 0, 0].tolist(), other["images"][:, 0, 0].tolist()]
    assert sorted(marks[0]) == sorted(marks[1]) and marks[0] != marks[1] and len(set(map(tuple, marks[0]))) == 15
    assert rows.describe(0)[0].startswith("train/") and rows.describe(0)[0].endswith(".png")
    copy = pickle.loads(pickle.dumps(rows))
    assert (copy.rows(np.arange(5))["images"] == batch["images"][:5]).all() and len(pickle.dumps(rows)) < 2000
    assert rows.fingerprint != data.rows("train", seed=4).fingerprint != data.rows("train").fingerprint


def test_images_are_brought_to_one_size(tmp_path: Path):
    """The shorter side to the size, the middle of the longer one: left and right of a wide image are cut off."""
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 200
    folder = tmp_path / "wide" / "a"
    folder.mkdir(parents=True)
    for i in range(4):
        PIL.Image.fromarray(pixels).save(folder / f"{i}.png")
    PIL.Image.fromarray(pixels[..., 0]).convert("L").save(folder / "grey.png")
    build_image_set(
        "wide", [tmp_path / "wide"], data_dir=tmp_path / "sets", split=SplitConfig(validation_fraction=0.0, test_fraction=0.0)
    )
    data = open_images(
        ImageDataConfig(dataset="wide", data_dir=str(tmp_path / "sets"), image_size=5, validation_split=None), seed=0
    )
    images = data.rows("train").rows(np.arange(5))["images"]
    assert images.shape == (5, 5, 5, 3) and (images[:, :, 1:4] > 190).all()


def test_bad_images(tmp_path: Path):
    folder = tmp_path / "set" / "cat"
    folder.mkdir(parents=True)
    for i in range(5):
        (folder / f"{i}.jpg").write_bytes(encoded((i, 0, 0), kind="JPEG"))
    (folder / "bad.jpg").write_bytes(encoded((9, 0, 0), (64, 64), kind="JPEG")[:300])
    with pytest.raises(ValueError, match=r"set/cat/bad.jpg: expected a JPEG or PNG image.*--on-error skip"):
        build_image_set("cats", [tmp_path / "set"], data_dir=tmp_path / "sets")
    assert not (tmp_path / "sets" / "cats").exists()
    report = build_image_set("cats", [tmp_path / "set"], data_dir=tmp_path / "sets", on_error="skip")
    assert report.skipped.count == 1 and sum(count for count, _ in report.splits.values()) == 5
    with pytest.raises(FileNotFoundError, match="there is nothing there"):
        build_image_set("dogs", [tmp_path / "no"], data_dir=tmp_path / "sets")
    (tmp_path / "x.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="x.tar.gz is not an archive that can be read"):
        build_image_set("dogs", [tmp_path / "x.tar.gz"], data_dir=tmp_path / "sets")
    with pytest.raises(ValueError, match="must be a folder of class folders, or one in .tar"):
        build_image_set("dogs", [folder / "0.jpg"], data_dir=tmp_path / "sets")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image is left for train: found none"):
        build_image_set("dogs", [tmp_path / "empty"], data_dir=tmp_path / "sets")


def test_an_image_that_is_too_large_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """When a set is built, and where it was built elsewhere."""
    folder, sets = tmp_path / "set" / "cat", tmp_path / "sets"
    folder.mkdir(parents=True)
    for i in range(5):
        (folder / f"{i}.png").write_bytes(encoded((i, 0, 0), (6, 6 + (i == 4))))
    whole = SplitConfig(validation_fraction=0.0, test_fraction=0.0)
    build_image_set("cats", [tmp_path / "set"], data_dir=sets, split=whole)
    data = open_images(ImageDataConfig(dataset="cats", data_dir=str(sets), image_size=6, validation_split=None), seed=0)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 36)
    with pytest.raises(
        ValueError, match=r"^image \d \(set/cat/4.png\) of train in .* it has more than 36 pixels.*; build the set"
    ):
        data.rows("train")
    with pytest.raises(
        ValueError, match=r"set/cat/4.png: expected a JPEG or PNG .*: it has more than 36 pixels.*--on-error skip"
    ):
        build_image_set("few", [tmp_path / "set"], data_dir=sets, split=whole)
    assert build_image_set("few", [tmp_path / "set"], data_dir=sets, split=whole, on_error="skip").skipped.count == 1


def test_commands(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sets = str(tmp_path / "sets")
    assert run(["build", "colors", str(source), "--images", "--data-dir", sets]) == 0
    assert "read 20 images" in capsys.readouterr().out
    assert run(["show", "colors", "--data-dir", sets, "--num", "1"]) == 0
    printed = capsys.readouterr().out
    assert "features: id, image (image), label (2 classes: blue, red)" in printed
    assert "image: PNG 6x6  label: " in printed


def test_errors_of_the_config(source: Path, tmp_path: Path):
    build_image_set("colors", [source], data_dir=tmp_path / "sets")
    config = {"dataset": "colors", "data_dir": str(tmp_path / "sets"), "image_size": 6}
    with pytest.raises(ValueError, match="has no feature 'class': it has id, image, label; choose with data.label_feature"):
        open_images(ImageDataConfig(**config, label_feature="class"), seed=0)
    with pytest.raises(ValueError, match="the feature 'id' .* must be a ClassLabel: it is Text"):
        open_images(ImageDataConfig(**config, label_feature="id"), seed=0).label_names  # noqa: B018
    with pytest.raises(ValueError, match="has no split 'dev'"):
        open_images(ImageDataConfig(**config, validation_split="dev"), seed=0)
    with pytest.raises(ValueError, match="image_size must be 1 or more: got 0"):
        unchecked(ImageDataConfig, dataset="colors", image_size=0)
