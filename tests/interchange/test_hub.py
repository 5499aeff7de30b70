"""Names on the hub, with a local cache in the hub's own layout and no connection."""

from fnmatch import fnmatch

import pytest

from jaxllm.interchange import open_published, resolve
from jaxllm.interchange.hub import FILES
from tests.interchange.battery import write_published

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with one model, as a download leaves it: blobs, a snapshot of links to them, and a ref."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "cache" / "models--someone--tiny-llama"
    write_published(model / "files", "LlamaForCausalLM")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    (model / "blobs").mkdir()
    snapshot = model / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted((model / "files").iterdir())):
        file.rename(model / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    return tmp_path / "cache"


def test_a_name_in_the_cache(cache):
    folder = resolve("someone/tiny-llama", cache_dir=cache)
    assert folder == cache / "models--someone--tiny-llama" / "snapshots" / COMMIT
    assert open_published(folder).config.num_layers == 2


def test_a_folder_wins_over_a_name(cache, tmp_path):
    (tmp_path / "someone" / "tiny-llama").mkdir(parents=True)
    assert resolve("someone/tiny-llama", cache_dir=cache).name == "tiny-llama"


def test_offline_and_not_in_the_cache(cache):
    with pytest.raises(FileNotFoundError) as error:
        resolve("someone/other", cache_dir=cache)
    message = str(error.value)
    assert message == (
        "there is no folder someone/other, no model of that name in the hub's cache, and HF_HUB_OFFLINE is set: download it "
        "where there is a connection (`hf download someone/other`) and copy it here"
    )


def test_a_revision_that_is_not_in_the_cache(cache):
    with pytest.raises(FileNotFoundError, match="no revision v2 of it in the hub's cache, and HF_HUB_OFFLINE is set"):
        resolve("someone/tiny-llama", revision="v2", cache_dir=cache)


@pytest.mark.parametrize("name", ["runs/deep/model", "../model", "a b", "/nowhere/model"])
def test_neither_a_folder_nor_a_name(cache, name):
    with pytest.raises(FileNotFoundError, match="there is no folder .*, and it is not a name on the hub"):
        resolve(name, cache_dir=cache)


def test_the_nearest_folders_are_named(cache, tmp_path):
    (tmp_path / "runs" / "deep" / "llama_small").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="; folders with names like it: runs/deep/llama_small"):
        resolve("runs/deep/llama_smal")


def test_a_file_is_no_folder(cache, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="model.safetensors is a file: name the folder"):
        resolve("model.safetensors")


def test_every_tokenizer_file_is_downloaded_and_no_pickle():
    names = ["tokenizer.json", "tokenizer.model", "source.spm", "merges.txt", "vocab.txt", "chat_template.jinja"]
    weights = ["model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    for name in [*names, *weights]:
        assert any(fnmatch(name, pattern) for pattern in FILES), name
    for name in ("pytorch_model.bin", "consolidated.safetensors", "model.onnx"):
        assert not any(fnmatch(name, pattern) for pattern in FILES), name
