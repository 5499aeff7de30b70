"""`jaxllm doctor` on a recipe, and on a run of many processes."""

import re
import socket
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from jaxllm.cli.doctor import run
from jaxllm.recipe.checkup import check_recipe
from jaxllm.sharding import MeshConfig
from tests.recipe import tiny

TINY = "tests/recipe/tiny.py"


def told(subject: str, processes: int = 1, **changes) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in check_recipe(tiny.config(**changes), processes)[subject]]


def test_a_recipe_that_fits():
    assert told("mesh", mesh=MeshConfig()) == [("ok", "data 8, of 8 devices of 1 process")]
    assert [level for level, _ in told("data")] == ["ok", "ok"]
    assert "train: 1 document in 1 file of " in told("data")[0][1]
    assert told("run folder")[0][0] in ("ok", "note")


def test_meshes_that_do_not_fit():
    [(level, said)] = told("mesh", mesh=MeshConfig(data=8, tensor=2))
    assert level == "broken" and "needs 16 devices: this machine has 8" in said
    assert told("mesh", mesh=MeshConfig(data=2)) == [("note", "data 2, of 8 devices of 1 process: 6 stay idle")]
    assert told("mesh", 4, mesh=MeshConfig(data=2))[0] == ("broken", "data 2, of 32 devices of 4 processes: 30 stay idle")


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"mesh": MeshConfig(data=2)}, "set --mesh.data 8"),
        ({"mesh": MeshConfig(), "batch_size": 12}, "set --batch-size 8 or 16"),
        ({"mesh": MeshConfig(data=1, tensor=2), "batch_size": 6}, "set --batch-size 4 or 8 and --mesh.data 4"),
        ({"mesh": MeshConfig(data=1, replica=3), "batch_size": 6}, "choose --mesh sizes whose product divides 8"),
    ],
)
def test_advice_uses_all_devices(changes, advice):
    (finding,) = check_recipe(tiny.config(**changes), 1)["mesh"]
    assert finding.level == "note" and finding.advice == advice


def test_data_and_folder_of_many_processes(tmp_path):
    assert "; 4 processes do not divide them, and all read from all" in told("data", 4)[0][1]
    assert told("data", data=tiny.config().data.__class__(dataset="/none", seq_len=16))[0][0] == "broken"
    assert told("run folder", 4)[1][0] == "note" and told("run folder", 4, run_dir=str(tmp_path))[1][0] == "ok"


def test_the_command_tells_of_the_recipe(capsys):
    assert run([TINY]) == 0
    said = capsys.readouterr().out
    assert "one: no cluster found" in said and "one device, of 8 devices" in said and "train: 1 document in" in said


def test_the_command_takes_fields_of_the_recipe(capsys, tmp_path):
    assert run([TINY, "--mesh.fsdp", "2"]) == 0
    assert "fsdp 2, of 8 devices" in capsys.readouterr().out
    assert run(["--num-processes=1", TINY, "--mesh.data=2", "--run-dir", str(tmp_path), "--mesh.tensor", "2"]) == 0
    said = capsys.readouterr().out
    assert "data 2 x tensor 2, of 8 devices" in said and str(tmp_path) in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([TINY, "--mesh.fsd", "2"], "unknown field --mesh.fsd: did you mean --mesh.fsdp?"),
        ([TINY, "--mesh.data", "3"], "mesh.data must divide batch_size: got data=3, batch_size=8"),
        ([TINY, "--coordinater", "x"], "unknown option --coordinater: did you mean --coordinator?"),
        (["--mesh.fsdp", "2", TINY], "--mesh.fsdp is no option of doctor: a field of a recipe comes behind it"),
    ],
)
def test_fields_that_are_none(words, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        run(words)


def test_the_command_tells_whether_the_processes_can_meet(capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        which = ["--coordinator", address, "--num-processes", "2", "--process-index"]
        assert run([*which, "1"]) == 0
        assert f"2, of which this is 1; process 0 at {address}: it answers" in capsys.readouterr().out
        assert run([*which, "0"]) == 1
        assert "process 0 cannot listen on port" in capsys.readouterr().out
    assert run([*which, "1"]) == 0
    assert "cannot be reached: Connection refused" in capsys.readouterr().out
    assert run(["--num-processes", "2"]) == 1
    assert "--coordinator and --process-index are missing" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["jaxlib", "numpy"])
def test_versions_are_checked_against_each_other(monkeypatch, missing):
    subject = sys.modules["jaxllm.hardware.checkup"]  # the room has a function of the same name
    have = subject.version
    monkeypatch.setattr(subject, "version", lambda name: "0.0.1" if name == missing else have(name))
    found = [finding for finding in subject._versions() if finding.text.startswith(missing)]
    assert any("for jax: 0.0.1 is installed" in finding.text for finding in found) and found[0].level == "broken"


@pytest.mark.parametrize(
    ("have", "tpu", "level", "text"),
    [
        ("0.0.42.7", False, "ok", "libtpu 0.0.42.7, which jax "),
        ("0.0.17", False, "note", "libtpu 0.0.17 is installed, and jax .* was made for ==0.0.42"),
        (None, False, "ok", "libtpu is not installed: a TPU, and `jaxllm plan --topology`, need it .*tpu]'.$"),
        (None, True, "note", "libtpu is not installed: .*; there seems to be a TPU here$"),
    ],
)
def test_the_compiler_of_tpus_is_looked_at(monkeypatch, have, tpu, level, text):
    subject = sys.modules["jaxllm.hardware.checkup"]
    real = subject.version

    def version(name):
        if name == "libtpu" and have is None:
            raise PackageNotFoundError(name)
        return have if name == "libtpu" else real(name)

    monkeypatch.setattr(subject, "version", version)
    monkeypatch.setattr(subject, "requires", lambda name: ["numpy", 'libtpu==0.0.42.*; extra == "tpu"'])
    monkeypatch.setattr(subject.glob, "glob", lambda pattern: ["/dev/accel0"] * (tpu and "accel" in pattern))
    (finding,) = subject._libtpu()
    assert finding.level == level and re.search(text, finding.text)
    assert (finding.advice is None) == (level == "ok")
