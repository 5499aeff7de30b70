"""The README says what the records say, and its commands are commands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from jaxllm.cli import COMMANDS

README = Path("README.md").read_text(encoding="utf-8")


def test_its_numbers_come_from_records():
    subprocess.run([sys.executable, "scripts/benchmark/readme_tables.py", "--check"], check=True)


def test_its_commands_exist():
    lines = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("jaxllm ")]
    assert len(commands) >= 8
    for command in commands:
        assert command[1] in COMMANDS, command
        for word in command:
            if word.startswith("configs/"):
                assert Path(word).is_file()


def test_its_files_exist():
    for path in re.findall(r"`((?:jaxllm|configs|scripts|colab)/[\w/.]+)`", README):
        assert Path(path).exists(), path


def test_no_torch_and_no_tensorflow_in_the_package():
    found = [
        f"{path}: {line}"
        for path in Path("jaxllm").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"\s*(import|from) (torch|tensorflow)\b(?!_datasets)", line)
    ]
    assert found == []


def test_training_imports_neither():
    code = "import sys, jaxllm.recipe; assert not {'torch', 'tensorflow'} & set(sys.modules), 'imported'"
    subprocess.run([sys.executable, "-c", code], check=True)
