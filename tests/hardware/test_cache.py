from pathlib import Path

from jaxllm.hardware.cache import cache_dir, read_json, write_json


def test_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXLLM_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.setenv("JAXLLM_CACHE", "~/elsewhere")
    assert cache_dir() == Path.home() / "elsewhere"
    monkeypatch.delenv("JAXLLM_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "jaxllm"


def test_json_comes_back_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "deep" / "value.json"
    assert write_json(path, {"a": [1, None, "x"]})
    assert read_json(path) == {"a": [1, None, "x"]}
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_read_is_none(tmp_path):
    path = tmp_path / "value.json"
    assert read_json(path) is None
    for text in ('{"a": 1', "[1]", ""):
        path.write_text(text)
        assert read_json(path) is None


def test_a_folder_that_refuses_is_said_not_raised(tmp_path):
    (tmp_path / "file").write_text("")
    assert not write_json(tmp_path / "file" / "value.json", {})
