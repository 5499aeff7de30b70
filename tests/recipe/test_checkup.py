"""`jaxllm doctor` on a recipe, and on a run of many processes."""

import socket
import sys

import pytest

from jaxllm.cli.doctor import run
from jaxllm.recipe.checkup import check_recipe
from jaxllm.sharding import MeshConfig
from tests.recipe import tiny

TINY = "tests/recipe/tiny.py"


def told(subject: str, processes: int = 1, **changes) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in check_recipe(tiny.config(**changes), processes)[subject]]


def test_a_recipe_that_fits():
    assert told("mesh", mesh=MeshConfig()) == [("ok", "data 8, of 8 devices of 1 process(es)")]
    assert [level for level, _ in told("data")] == ["ok", "ok"]
    assert "train: 1 documents in 1 file(s) of " in told("data")[0][1]
    assert told("run folder")[0][0] in ("ok", "note")


def test_meshes_that_do_not_fit():
    [(level, said)] = told("mesh", mesh=MeshConfig(data=8, tensor=2))
    assert level == "broken" and "needs 16 devices: this machine has 8" in said
    assert told("mesh", mesh=MeshConfig(data=2)) == [("note", "data 2, of 8 devices of 1 process(es): 6 stay idle")]
    assert told("mesh", 4, mesh=MeshConfig(data=2))[0] == ("broken", "data 2, of 32 devices of 4 process(es): 30 stay idle")


def test_data_and_folder_of_many_processes(tmp_path):
    assert "; 4 processes do not divide them, and all read from all" in told("data", 4)[0][1]
    assert told("data", data=tiny.config().data.__class__(dataset="/none", seq_len=16))[0][0] == "broken"
    assert told("run folder", 4)[1][0] == "note" and told("run folder", 4, run_dir=str(tmp_path))[1][0] == "ok"


def test_the_command_tells_of_the_recipe(capsys):
    assert run([TINY]) == 0
    said = capsys.readouterr().out
    assert "one: no cluster found" in said and "one device, of 8 devices" in said and "train: 1 documents" in said


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
    assert "--coordinator and --process-index is missing" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["jaxlib", "numpy"])
def test_versions_are_checked_against_each_other(monkeypatch, missing):
    subject = sys.modules["jaxllm.hardware.checkup"]  # the room has a function of the same name
    have = subject.version
    monkeypatch.setattr(subject, "version", lambda name: "0.0.1" if name == missing else have(name))
    found = [finding for finding in subject._versions() if finding.text.startswith(missing)]
    assert any("for jax: 0.0.1 is installed" in finding.text for finding in found) and found[0].level == "broken"
