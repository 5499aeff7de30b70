"""The shell scripts and the benchmark records, with stand-ins for pip and jaxllm that write down how they were called."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxllm.recipe import find_recipe

ROOT = Path(__file__).parents[1]

PYTHON = f"""#!/bin/bash
if [ "$1 $2" = "-m pip" ]; then echo "pip ${{@: -1}}" >> calls; exit "${{PIP_EXIT:-0}}"; fi
exec {sys.executable} "$@"
"""
JAXLLM = """#!/bin/bash
echo "jaxllm $*" >> calls
if [ "$1" = train ]; then mkdir -p "${@: -1}"; touch "${@: -1}/recipe.json"; fi
"""
ENVIRONMENT = "set -euo pipefail; source scripts/environment.sh; "


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a stand-in environment in .venv."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("benchmark"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, text in (("python", PYTHON), ("jaxllm", JAXLLM)):
        path = tmp_path / ".venv" / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    return tmp_path


def bash(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", *command], cwd=folder, env=os.environ | variables, capture_output=True, text=True)


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    made = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return made


@pytest.mark.parametrize("path", sorted([*ROOT.glob("scripts/*.sh"), ROOT / ".ci" / "run"]), ids=lambda path: path.name)
def test_scripts_parse(path):
    assert subprocess.run(["bash", "-n", path]).returncode == 0


def test_quickstart_trains_evaluates_and_samples(checkout):
    done = bash(checkout.parent, str(checkout / "scripts" / "quickstart.sh"))
    assert done.returncode == 0, done.stderr
    run_dir = "runs/shakespeare_char"
    assert calls(checkout) == [
        "pip .",
        f"jaxllm train configs/shakespeare_char.py --run-dir {run_dir}",
        f"jaxllm evaluate {run_dir}",
        f"jaxllm generate {run_dir} --prompt ROMEO: --max-tokens 300",
    ]
    assert f"{run_dir}/report.html" in done.stdout


def test_quickstart_again_goes_on_with_the_run_and_installs_nothing(checkout):
    bash(checkout, "scripts/quickstart.sh", "runs/mine")
    calls(checkout)
    done = bash(checkout, "scripts/quickstart.sh", "runs/mine")
    assert calls(checkout)[0] == "jaxllm train runs/mine"
    assert "runs/mine holds an earlier run" in done.stdout and "scripts/quickstart.sh runs/another" in done.stdout


def test_quickstart_stops_where_training_fails(checkout):
    (checkout / ".venv" / "bin" / "jaxllm").write_text("#!/bin/bash\nexit 2\n")
    done = bash(checkout, "scripts/quickstart.sh")
    assert done.returncode == 2 and "evaluating" not in done.stdout


def test_installs_again_when_the_requirements_change(checkout):
    make = ENVIRONMENT + 'make_environment .venv python3 "$0"'
    for expected in (["pip ."], []):
        assert bash(checkout, "-c", make, ".").returncode == 0
        assert calls(checkout) == expected
    assert bash(checkout, "-c", make, ".[test]").returncode == 0
    assert calls(checkout) == ["pip .[test]"]
    with (checkout / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    bash(checkout, "-c", make, ".")
    assert calls(checkout) == ["pip ."]


def test_a_failed_installation_is_loud_and_tried_again(checkout):
    make = ENVIRONMENT + "make_environment .venv python3 .; echo never"
    done = bash(checkout, "-c", make, PIP_EXIT="1")
    assert done.returncode != 0 and "pip could not install . into .venv" in done.stderr and "never" not in done.stdout
    calls(checkout)
    bash(checkout, "-c", make)
    assert calls(checkout) == ["pip ."]


def test_no_python_is_said(checkout):
    (checkout / "nothing").mkdir()
    done = bash(checkout, "-c", f"{ENVIRONMENT} PATH={checkout}/nothing; find_python")
    assert done.returncode != 0 and "no Python 3.11 or later" in done.stderr


def test_an_old_python_is_not_taken(checkout):
    folder = checkout / "path"
    folder.mkdir()
    for name, code in (("python3", "exit 1"), ("python3.12", f'exec {sys.executable} "$@"')):
        (folder / name).write_text(f"#!/bin/bash\n{code}\n")
        (folder / name).chmod(0o755)
    done = bash(checkout, "-c", f"{ENVIRONMENT} PATH={folder}:/bin; find_python")
    assert done.stdout.strip() == str(folder / "python3.12")


def test_a_record_holds_what_is_needed_to_measure_again(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "benchmark"))
    import record

    monkeypatch.setattr(record, "RESULTS", tmp_path)
    recipe = find_recipe(str(ROOT / "configs" / "shakespeare_char.py"))
    path = record.write_record("topic", recipe, {"step_ms": record.spread([3.0, 1.0, 8.0])}, "a note")
    topic, name, device, date = path.stem.split("--")
    found = json.loads(path.read_text())
    assert (topic, name, date) == ("topic", "shakespeare_char", found["date"]) and device.startswith("cpu-")
    assert {key: found["results"]["step_ms"][key] for key in ("min", "median", "max", "repeats")} == {
        "min": 1.0,
        "median": 3.0,
        "max": 8.0,
        "repeats": 3,
    }
    assert found["config"]["model"]["embed_dim"] == 128 and found["environment"]["versions"]["jax"] and found["command"]
    assert record.newest_record("topic", "shakespeare_char") == found
    older = path.with_name(path.name.replace(date, "2020-01-01"))
    older.write_text("{}")
    assert record.newest_record("topic", "shakespeare_char") == found
    assert record.newest_record("other", "shakespeare_char") is None
