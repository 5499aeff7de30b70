import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from jaxllm.data import find_text_set
from jaxllm.data.tfds_builder import write_set


class Elsewhere(tfds.core.GeneratorBasedBuilder):
    """A set that some other package prepares: other features, two versions, shuffled by TFDS."""

    VERSION = tfds.core.Version("2.1.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {"content": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=2)}
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"pool": self._generate_examples()}

    def _generate_examples(self):
        for i in range(10):
            yield i, {"content": f"text {i} 月", "label": i % 2}


def prepare(folder: Path, file_format: str = "array_record") -> Path:
    builder = Elsewhere(data_dir=str(folder), file_format=file_format)
    builder.download_and_prepare()
    return Path(builder.data_dir)


def test_shipped_set_is_split_as_in_nanogpt(tmp_path: Path):
    text_set = find_text_set("tiny_shakespeare", data_dir=tmp_path)
    train, validation = (text_set.open(split).texts(0, 1)[0] for split in ("train", "validation"))
    assert (len(train), len(validation)) == (1_003_854, 111_540)
    assert train.startswith("First Citizen:") and len(set(train)) == 65
    state = (text_set.folder / "dataset_info.json").stat().st_mtime_ns
    find_text_set("tiny_shakespeare", data_dir=tmp_path)  # not built again
    assert (text_set.folder / "dataset_info.json").stat().st_mtime_ns == state


@pytest.mark.parametrize("by", ["folder", "parent", "name", "name and version"])
def test_set_prepared_elsewhere(tmp_path: Path, by: str):
    folder = prepare(tmp_path)
    name = {"folder": str(folder), "parent": str(folder.parent), "name": "elsewhere", "name and version": "elsewhere:2.1.0"}
    text_set = find_text_set(name[by], data_dir=tmp_path, text_feature="content")
    assert text_set.folder == folder and text_set.sizes == {"pool": 10} and text_set.features == ("content", "label")
    split = text_set.open("pool")
    assert sorted(split) == [f"text {i} 月" for i in range(10)]
    assert [len(text_set.open(s)) for s in ("pool[:30%]", "pool[30%:]")] == [3, 7]
    assert split.document_id(3) == "pool document 3"
    assert list(pickle.loads(pickle.dumps(split))) == list(split)


def test_name_that_tfds_knows_is_prepared(tmp_path: Path):
    text_set = find_text_set("elsewhere", data_dir=tmp_path / "named", text_feature="content")
    assert text_set.folder == tmp_path / "named" / "elsewhere" / "2.1.0" and text_set.sizes == {"pool": 10}


def test_newest_version_is_taken(tmp_path: Path):
    folder = prepare(tmp_path)
    folder.rename(folder.parent / "10.0.0")
    prepare(tmp_path)
    assert find_text_set("elsewhere", data_dir=tmp_path, text_feature="content").folder.name == "10.0.0"


def test_errors(tmp_path: Path):
    folder = prepare(tmp_path)
    with pytest.raises(ValueError, match="no feature 'text': it has content, label; choose with text_feature"):
        find_text_set(str(folder))
    with pytest.raises(ValueError, match=r"no split 'train': it has pool \(10 documents\)"):
        find_text_set(str(folder), text_feature="content").open("train")
    with pytest.raises(ValueError, match=r"found no data set 'nothing'.*\(there: elsewhere;.*jaxllm data build nothing"):
        find_text_set("nothing", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        find_text_set("./nothing", data_dir=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"dataset_info\.json.*found none; make one"):
        find_text_set(str(tmp_path / "empty"))
    (folder / "features.json").write_text("{")
    with pytest.raises(ValueError, match="is not a TFDS data set that can be read"):
        find_text_set(str(folder), text_feature="content")


def test_format_without_random_access_is_refused(tmp_path: Path):
    folder = prepare(tmp_path)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(ValueError, match="must be written as array_record.*it is tfrecord"):
        find_text_set(str(folder), text_feature="content")


def test_fingerprint_follows_the_files(tmp_path: Path):
    def fingerprint(text: str, split: str = "train") -> str:
        documents = {"train": [("0", text)], "validation": [("1", "x")]}
        write_set("set", documents, tmp_path, description="", overwrite=True)
        return find_text_set("set", data_dir=tmp_path).open(split).fingerprint

    first = fingerprint("one")
    assert first == find_text_set("set", data_dir=tmp_path).open("train").fingerprint
    assert len({first, fingerprint("two"), fingerprint("two", "validation")}) == 3


def test_no_tensorflow_and_no_torch(tmp_path: Path):
    code = """if True:
        import sys
        from jaxllm.data import DataConfig, open_data, train_batches
        data = open_data(DataConfig(dataset="tiny_shakespeare", seq_len=8), seed=0)
        next(train_batches(data.train, batch_size=2))
        assert not {"tensorflow", "torch"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
