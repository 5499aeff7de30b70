"""Runs in buckets: Google's, as far as a stand-in is one, and fsspec's memory."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import jaxllm
from jaxllm.cli import run
from jaxllm.data import DataConfig
from jaxllm.hardware.bucket import Bucket
from jaxllm.recipe import claim, find_recipe, fit, is_run_folder, load_json, save_json
from jaxllm.recipe.checkup import check_recipe
from jaxllm.recipe.claim import claimed_in_bucket
from jaxllm.recipe.run_folder import choose_folder
from jaxllm.recipe.working_copy import CLAIM_FILE, WorkingCopy
from jaxllm.training import LogConfig, read_metrics
from tests.distributed.launch import train_to_end
from tests.recipe import tiny

LOG = LogConfig(every=3, tensorboard=True)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    fit(tiny.config(log=LOG, run_dir=str(folder)))
    return folder


def losses(place) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(place) if line["split"] == "train"}


def test_a_run_in_a_bucket_is_the_same_run(bucket_url, on_disk, capsys):
    """Train, go on, load: the same figures and text as on a disk."""
    fitted = fit(tiny.config(log=LOG, run_dir=bucket_url, steps=6))
    assert fitted.run_dir == bucket_url and is_run_folder(bucket_url) and find_recipe(bucket_url).run_dir == bucket_url
    assert run(["train", bucket_url, "--steps", "12"]) == 0
    said = capsys.readouterr().out
    assert f"new run {bucket_url}" in said and f"resuming {bucket_url}" in said and f"report: {bucket_url}/report.html" in said
    assert losses(bucket_url) == losses(on_disk)
    assert set(Bucket(bucket_url).names()) == {path.name for path in on_disk.iterdir()}
    assert len(Bucket(bucket_url).names("tensorboard")) == 2
    assert json.loads(Bucket(bucket_url).read("results.json"))["step"] == 12
    assert b"<svg" in Bucket(bucket_url).read("report.html")
    ours, theirs = jaxllm.load(bucket_url), jaxllm.load(on_disk)
    assert ours.source == bucket_url and ours.step == theirs.step
    assert ours.generate("ROMEO:", max_tokens=8) == theirs.generate("ROMEO:", max_tokens=8)


def test_what_is_no_run(bucket_url, tmp_path, capsys):
    assert run(["train", bucket_url]) == 2
    assert f"no run in {bucket_url}: there is no recipe.json" in capsys.readouterr().err
    Bucket(bucket_url).write("notes.txt", b"mine")
    with pytest.raises(ValueError, match="exists and is not a run folder"):
        choose_folder(tiny.config(run_dir=bucket_url))
    assert run(["convert", bucket_url, "gs://bucket/exported"]) == 2
    assert "must be a folder of this host" in capsys.readouterr().err


def test_a_run_folder_by_its_file_url(tmp_path):
    fitted = fit(tiny.config(run_dir=f"file://{tmp_path}/run", steps=2))
    assert fitted.run_dir == tmp_path / "run" and losses(f"file://{tmp_path}/run") == losses(tmp_path / "run")
    assert jaxllm.load(f"file://{tmp_path}/run").step == 2


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("gs:/bucket/run", "a URL has two slashes, as in gs://bucket/folder: got gs:/bucket/run"),
        ("gs://", "a URL must name a kind and a bucket, as in gs://bucket/folder: got gs://"),
        ("g://bucket/run", "a URL must name a kind and a bucket, as in gs://bucket/folder: got g://bucket/run"),
    ],
)
def test_a_mistyped_url(place, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_json(tiny.config(), tmp_path / "recipe.json")
    assert run(["train", "recipe.json", "--run-dir", place]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]


def test_what_cannot_be_seen_is_not_called_missing(google):
    google.refuse = lambda method, name: 403
    with pytest.raises(PermissionError, match="no access"):
        find_recipe("gs://bucket/runs/first")


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "gs", raising=False)  # type: ignore[attr-defined]
    assert run(["train", "tests/recipe/tiny.py", "--run-dir", "gs://bucket/run"]) == 2
    assert "pip install 'jaxllm[gcs]'" in capsys.readouterr().err
    level, text, advice = told("run folder", run_dir="gs://bucket/run")
    assert (
        level == "broken" and text.startswith("gs://bucket/run cannot be opened here") and advice == "pip install 'jaxllm[gcs]'"
    )


def test_only_what_changed_is_sent_and_the_recipe_last(google):
    copy = WorkingCopy("gs://bucket/runs/try")
    for name in ("recipe.json", "tokenizer/vocab.txt", "zebra.txt"):
        (copy.path / name).parent.mkdir(exist_ok=True)
        (copy.path / name).write_text(name)
    copy.publish()
    sent = [name for method, name in google.requests if method == "POST" and name]
    assert [name.removeprefix("runs/try/") for name in sent] == ["tokenizer/vocab.txt", "zebra.txt", "recipe.json"]
    google.requests.clear()
    (copy.path / "zebra.txt").write_text("striped")
    copy.publish()
    assert google.requests == [("POST", "runs/try/zebra.txt")] and google.text("runs/try/zebra.txt") == "striped"
    again = WorkingCopy("gs://bucket/runs/try")
    (again.path / "left").write_text("from before")
    again.fetch()
    assert sorted(path.name for path in again.path.iterdir()) == ["recipe.json", "tokenizer", "zebra.txt"]


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(claim, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(claim, "STALE_SECONDS", 0.5)


def test_one_run_at_a_time(bucket_url, quick):
    bucket = Bucket(bucket_url)
    with claimed_in_bucket(bucket):
        with pytest.raises(ValueError, match=f"another process is training in {bucket_url} .*, process {os.getpid()},"):
            with claimed_in_bucket(bucket):
                pass
        assert bucket.names() == [CLAIM_FILE]
    assert bucket.names() == []


def test_a_claim_that_nobody_renews_counts_for_nothing(bucket_url, quick):
    bucket = Bucket(bucket_url)
    bucket.write(CLAIM_FILE, b"a host that is gone", new=True)
    with pytest.raises(FileExistsError):
        bucket.write(CLAIM_FILE, b"another", new=True)
    begin = time.monotonic()
    with claimed_in_bucket(bucket):
        assert b"process" in bucket.read(CLAIM_FILE)
    assert time.monotonic() - begin < 5


def test_of_two_that_find_the_same_stale_claim_one_takes_its_place(bucket_url, quick, monkeypatch):
    """The other comes to delete it when the first has already put its own there."""
    Bucket(bucket_url).write(CLAIM_FILE, b"a host that is gone")
    delete_version, taken = Bucket.delete_version, []

    def late(self: Bucket, name: str, version: str) -> bool:
        monkeypatch.setattr(Bucket, "delete_version", delete_version)
        rival.enter_context(claimed_in_bucket(Bucket(bucket_url)))
        taken.append(self.read(CLAIM_FILE))
        return delete_version(self, name, version)

    with contextlib.ExitStack() as rival:
        monkeypatch.setattr(Bucket, "delete_version", late)
        with pytest.raises(ValueError, match="another process is training in"), claimed_in_bucket(Bucket(bucket_url)):
            pass
        assert [Bucket(bucket_url).read(CLAIM_FILE)] == taken != [b"a host that is gone"]
    assert Bucket(bucket_url).names() == []


def test_only_the_version_that_was_looked_at_is_deleted(bucket_url):
    bucket = Bucket(bucket_url)
    bucket.write("note.txt", b"same")
    version = bucket.version("note.txt")
    bucket.write("note.txt", b"same")
    assert not bucket.delete_version("note.txt", version) and bucket.names() == ["note.txt"]
    assert bucket.delete_version("note.txt", bucket.version("note.txt")) and bucket.names() == []
    assert not bucket.delete_version("note.txt", version)


def test_google_decides_which_version_is_deleted(google):
    """Written again between the last look and the deletion."""
    bucket = Bucket("gs://bucket/runs/try")
    bucket.write("note.txt", b"old")

    def refuse(method: str, name: str) -> None:
        if method == "DELETE":
            google.put(name, b"new", None)

    google.refuse = refuse
    assert not bucket.delete_version("note.txt", bucket.version("note.txt"))
    assert google.text("runs/try/note.txt") == "new"


def test_the_files_of_a_run_are_copied_once(bucket_url, on_disk, monkeypatch):
    """Before the claim, to read the recipe; then only what changed meanwhile."""
    for path in (on_disk / "recipe.json", on_disk / "metrics.jsonl", *(on_disk / "tokenizer").iterdir()):
        Bucket(bucket_url).upload(path, path.relative_to(on_disk).as_posix())
    copied, download = [], Bucket.download
    monkeypatch.setattr(Bucket, "download", lambda self, name, file: (copied.append(name), download(self, name, file))[1])
    folder, _ = choose_folder(dataclasses.replace(load_json(on_disk / "recipe.json"), run_dir=bucket_url))
    assert folder.load_tokenizer() is not None
    with folder.claimed():
        assert sorted(copied) == sorted(set(copied)) and {"recipe.json", "metrics.jsonl"} < set(copied)
        assert (folder.path / "metrics.jsonl").read_bytes() == (on_disk / "metrics.jsonl").read_bytes()
    (folder.path / "metrics.jsonl").write_text("changed here")
    Bucket(bucket_url).delete_folder("tokenizer")
    copied.clear()
    assert folder.load_tokenizer() is None and copied == ["metrics.jsonl"]


def test_what_an_earlier_run_sent_before_it_gave_up_its_claim_is_kept(bucket_url, on_disk):
    """Its last log lines may come between the choice of the folder and the claim."""
    bucket = Bucket(bucket_url)
    bucket.write("recipe.json", (on_disk / "recipe.json").read_bytes())
    bucket.write("metrics.jsonl", b"first")
    folder, _ = choose_folder(dataclasses.replace(load_json(on_disk / "recipe.json"), run_dir=bucket_url))
    bucket.write("metrics.jsonl", b"first and last")
    with folder.claimed():
        assert (folder.path / "metrics.jsonl").read_bytes() == b"first and last"


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_a_run_that_began_meanwhile_is_not_overwritten(where, bucket_url, on_disk, tmp_path):
    place = bucket_url if where == "bucket" else str(tmp_path / "run")
    folder, _ = choose_folder(tiny.config(run_dir=place))
    if where == "bucket":
        Bucket(place).write("recipe.json", (on_disk / "recipe.json").read_bytes())
    else:
        shutil.copytree(on_disk, place)
    with pytest.raises(ValueError, match="another process has begun a run in"), folder.claimed():
        pass


def test_who_finds_its_place_taken_ends(bucket_url, quick, monkeypatch, capsys):
    left = threading.Event()
    monkeypatch.setattr(claim, "leave", lambda code: left.set())
    bucket = Bucket(bucket_url)
    with claimed_in_bucket(bucket):
        bucket.write(CLAIM_FILE, b"a newcomer")
        assert left.wait(5)
    assert bucket.read(CLAIM_FILE) == b"a newcomer"
    assert "another process has taken over" in capsys.readouterr().err


def told(subject: str, processes: int = 1, **changes) -> tuple[str, str, str | None]:
    [found] = check_recipe(tiny.config(**changes), processes)[subject]
    return found.level, found.text, found.advice


def test_the_doctor_tries_the_bucket(google):
    folder, data = "gs://bucket/runs/try", DataConfig(dataset="gs://bucket/sets/mine", seq_len=16)
    level, text, _ = told("run folder", run_dir=folder)
    assert level == "ok" and "gs://bucket/runs/try: an object written, read and deleted in" in text
    assert google.names() == []
    assert told("data", data=data)[:2] == ("broken", "gs://bucket/sets/mine: there is nothing")
    google.put("sets/mine/1.0.0/dataset_info.json", b"{}" * 2**20, None)
    level, text, _ = told("data", data=data)
    assert level == "ok" and "1 object, 0.0 GiB, which each host copies to" in text
    google.refuse = lambda method, name: 403
    for level, text, advice in (told("run folder", run_dir=folder), told("data", data=data)):
        assert level == "broken" and text.endswith(": no access") and advice is not None
        assert "gcloud auth application-default login" in advice and "roles/storage.objectUser" in advice
    assert told("run folder", 4, run_dir="memory://x")[0] == "broken"


@pytest.mark.slow
def test_killed_again_and_again(google, tmp_path):
    """kill -9 at any moment; the run goes on from the bucket, and its log lacks nothing."""
    url, straight = "gs://bucket/runs/try", tmp_path / "straight"
    recipe = tiny.config(log=LogConfig(every=5, tensorboard=False), steps=60)
    fit(dataclasses.replace(recipe, run_dir=str(straight)))
    save_json(dataclasses.replace(recipe, steps=10**6), tmp_path / "recipe.json")
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "PYTHONUNBUFFERED": "1"}
    for attempt in range(4):
        source = [url] if "runs/try/recipe.json" in google.objects else [f"{tmp_path}/recipe.json", "--run-dir", url]
        for name in google.names(f"runs/try/{CLAIM_FILE}"):  # as if its 30 s were over
            del google.objects[name]
        steps = ["--steps", "60"] if attempt == 3 else []
        command = [sys.executable, "-m", "jaxllm", "train", *source, *steps]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if attempt < 3:
            assert process.stdout is not None and any("  loss " in line for line in process.stdout)
            time.sleep(0.5 + attempt)
            process.send_signal(signal.SIGKILL)
        said, _ = process.communicate()
    assert process.returncode == 0, said
    ours, theirs = losses(url), losses(straight)
    assert {step: ours[step] for step in theirs} == theirs and list(ours) == sorted(ours)


@pytest.mark.slow
def test_many_processes_write_their_pieces_to_the_bucket(google, tmp_path):
    url = "gs://bucket/runs/try"
    recipe = tiny.config(steps=4, mesh=tiny.MeshConfig(data=1, fsdp=2))
    save_json(recipe, tmp_path / "recipe.json")
    said = train_to_end(2, f"{tmp_path}/recipe.json", "--run-dir", url)
    assert "2 processes on 1 host" in said[0]
    assert len({name.split("/")[5] for name in google.names("runs/try/checkpoints/4/state/ocdbt.process_")}) == 2
    train_to_end(2, url, "--steps", "8")
    fit(dataclasses.replace(recipe, run_dir=str(tmp_path / "straight"), steps=8, mesh=tiny.MeshConfig(data=1)))
    ours, theirs = losses(url), losses(tmp_path / "straight")
    assert max(abs(ours[step] - theirs[step]) for step in theirs) < 1e-5
    assert jaxllm.load(url).step == 8
