"""The gcloud commands that a dry run prints, and what the command line refuses."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.quick import some

ROOT = Path(__file__).parents[2]
MACHINES = ROOT / "scripts" / "tpu_vm" / "machines"

# The flags that cloud.google.com/sdk/gcloud/reference lists for each command, of those that are used here. Every gcloud
# command also takes --project, --format and --quiet.
SSH = {"--zone", "--worker", "--command", "--ssh-flag", "--internal-ip", "--ssh-key-file"}
SCP = {"--zone", "--worker", "--recurse", "--scp-flag", "--internal-ip", "--ssh-key-file"}
CREATE = {"--zone", "--accelerator-type", "--type", "--topology", "--spot", "--network", "--service-account", "--reserved"}
FLAGS = {
    "compute tpus tpu-vm create": CREATE | {"--version"},
    "compute tpus tpu-vm describe": {"--zone"},
    "compute tpus tpu-vm ssh": SSH,
    "compute tpus tpu-vm scp": SCP,
    "compute tpus tpu-vm delete": {"--zone", "--async"},
    "compute tpus queued-resources create": CREATE | {"--runtime-version", "--node-id", "--node-count", "--node-prefix"},
    "compute tpus queued-resources describe": {"--zone"},
    "compute tpus queued-resources ssh": SSH | {"--node", "--batch-size", "--tunnel-through-iap"},
    "compute tpus queued-resources scp": SCP | {"--node", "--batch-size", "--tunnel-through-iap"},
    "compute tpus queued-resources delete": {"--zone", "--force", "--async"},
    "storage rsync": {"--recursive", "--exclude"},
}


@pytest.fixture(autouse=True)
def no_gcloud(monkeypatch, tmp_path_factory):
    """Where gcloud is installed, tests must not reach it."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "gcloud").write_text("#!/bin/sh\necho 'a test called gcloud' >&2\nexit 99\n")
    (folder / "gcloud").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def tpu_vm(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/tpu_vm", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True)


def printed(*arguments: str) -> list[list[str]]:
    """The commands of a dry run, split as a shell would."""
    done = tpu_vm(arguments[0], "--dry-run", *arguments[1:])
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    return [shlex.split(line) for line in lines]


VERBS = (
    ["create"],
    ["setup"],
    ["launch", "configs/llama_1b.py"],
    ["status"],
    ["logs"],
    ["run", "--", "df", "-h"],
    ["stop"],
    ["results", "llama_1b"],
    ["delete"],
)


@pytest.mark.parametrize(
    "path", some(sorted(MACHINES.glob("*.toml")), lambda path: path.stem == "v5e-16-spot"), ids=lambda path: path.stem
)
def test_every_command_and_flag_is_in_the_reference(path):
    for verb, *rest in VERBS:
        for command in printed(verb, str(path), *rest):
            assert command[0] == "gcloud"
            name = next(known for known in FLAGS if " ".join(command[1:]).startswith(known))
            flags = {word.partition("=")[0] for word in command if word.startswith("--")}
            assert flags - FLAGS[name] <= {"--project", "--format", "--quiet"}, command


def test_one_host_on_demand():
    where = "jaxllm-v5e-8 --zone=us-west4-a"
    tpus = "gcloud compute tpus tpu-vm"
    run = "gs://my-bucket/jaxllm/runs/llama_1b"
    found = printed("launch", f"{MACHINES}/v5e-8.toml", "configs/llama_1b.py", "--mesh.fsdp", "8")
    report = f"{tpus} ssh {where} --worker=all".split()
    assert [command for command in found if "worker.sh report" not in command[-2]] == [
        f"{tpus} describe {where} --format=json".split(),
        f"{tpus} create {where} --accelerator-type=v5litepod-8 --version=v2-alpha-tpuv5-lite --quiet".split(),
        f"{tpus} describe {where} --format=json".split(),
        f"{tpus} scp {found[4][5]} jaxllm-v5e-8:jaxllm-v5e-8.tar.gz --zone=us-west4-a --worker=all --quiet".split(),
        [
            *report,
            "--command=tar -xzf jaxllm-v5e-8.tar.gz scripts/tpu_vm/worker.sh --to-stdout | bash -s install jaxllm-v5e-8.tar.gz",
            "--quiet",
        ],
        [
            *report,
            "--command=bash jaxllm/scripts/tpu_vm/worker.sh start llama_1b gs://my-bucket/jaxllm/logs/llama_1b"
            f" configs/llama_1b.py --mesh.fsdp 8 --run-dir {run}",
            "--quiet",
        ],
    ]


def test_a_spot_slice_from_the_queue_and_its_end():
    path = f"{MACHINES}/v5e-16-spot.toml"
    where = "jaxllm-v5e-16 --zone=us-west4-a"
    tpus = "gcloud compute tpus queued-resources"
    assert printed("create", path)[1] == (
        f"{tpus} create {where} --accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite"
        " --node-id=jaxllm-v5e-16 --spot --quiet"
    ).split(" ")
    assert printed("delete", path)[1] == f"{tpus} delete {where} --force --quiet".split()


def test_several_slices_are_one_queued_resource():
    path = f"{MACHINES}/v6e-256-two-slices.toml"
    create = printed("create", path)[1]
    assert {"--accelerator-type=v6e-256", "--runtime-version=v2-alpha-tpuv6e"} < set(create)
    assert {"--node-count=2", "--node-prefix=jaxllm-v6e-512"} < set(create) and "--spot" not in create
    install = printed("setup", path)[1]
    assert {"--node=all", "--worker=all"} < set(install)
    command = shlex.split(next(word for word in install if word.startswith("--command=")))
    assert command[-1] == "gcloud storage rsync --recursive gs://my-bucket/data ~/data"


def test_project_image_and_more_flags_are_passed_on(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\ntype = "v5p:4x4x12"\nzone = "us-east5-a"\nbucket = "gs://b"\nproject = "p"\nruntime = "image"\n'
        'create_flags = ["--network=n"]\nssh_flags = ["--internal-ip"]\n'
    )
    create = "compute tpus tpu-vm create mine --zone=us-east5-a --project=p --type=v5p --topology=4x4x12 --version=image"
    assert printed("create", str(path))[1] == f"gcloud alpha {create} --network=n --quiet".split()
    path.write_text(path.read_text().replace("v5p", "v4"))
    assert printed("create", str(path))[1] == f"gcloud {create.replace('v5p', 'v4')} --network=n --quiet".split()
    assert "--internal-ip" in printed("stop", str(path))[0]


def test_logs_of_one_worker_and_of_all():
    path = f"{MACHINES}/v5e-16-spot.toml"
    one, every = printed("logs", path, "--lines", "5")[0], printed("logs", path, "--worker", "all")[0]
    assert {"--node=0", "--worker=0", "--command=bash jaxllm/scripts/tpu_vm/worker.sh follow 5"} < set(one)
    assert {"--node=all", "--worker=all"} < set(every) and "$(hostname): " in every[-2]


def test_results_come_without_checkpoints_unless_asked_for(tmp_path):
    path = f"{MACHINES}/v5e-8.toml"
    copy = "gcloud storage rsync gs://my-bucket/jaxllm/runs/mine runs/mine --recursive".split()
    assert printed("results", path, "mine") == [[*copy, "--exclude=^checkpoints/.*"]]
    assert printed("results", path, "mine", "--checkpoints") == [copy]
    assert printed("results", path, "mine", "--to", str(tmp_path))[0][4] == str(tmp_path)


def test_words_reach_the_worker_as_they_were_typed():
    rest = ("configs/llama_1b.py", "--sample.prompt", 'it\'s $HOME; "ok"')
    start = printed("launch", f"{MACHINES}/v5e-8.toml", "--run", "mine", *rest)[-1][-2]
    words = shlex.split(start.removeprefix("--command="))
    assert words[2:6] == ["start", "mine", "gs://my-bucket/jaxllm/logs/mine", "configs/llama_1b.py"]
    assert words[6:] == ["--sample.prompt", rest[2], "--run-dir", "gs://my-bucket/jaxllm/runs/mine"]


def test_values_of_variables_are_not_printed():
    launch = ("launch", "--dry-run", f"{MACHINES}/v5e-8.toml", "--env", "TOKEN", "--env", "OTHER=hidden", "configs/llama_1b.py")
    done = tpu_vm(*launch, TOKEN="very-secret")
    assert "TOKEN=*** OTHER=*** bash jaxllm" in done.stdout
    assert "very-secret" not in done.stdout and "hidden" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["launch", "{machine}", "configs/lama_1b.py"], "no recipe configs/lama_1b.py"),
        (["launch", "{machine}", "configs/llama_1b.py", "--run-dir=x"], "--run-dir is chosen by launch"),
        (["launch", "{machine}", "configs/llama_1b.py", "--dry-run"], "--dry-run belongs to launch"),
        (["launch", "{machine}", "configs/llama_1b.py", "--help"], "--help trains nothing: `jaxllm train configs/llama_1b.py"),
        (
            ["launch", "--dry-run", "{machine}", "configs/llama_1b.py", "--model.num-layer", "2"],
            "training would refuse this: unknown field --model.num-layer: did you mean --model.num-layers?",
        ),
        (
            ["launch", "--dry-run", "{machine}", "configs/llama_1b.py", "--mesh.tensor", "3"],
            "mesh.tensor must divide model.num_heads: got tensor=3, model.num_heads=32; sizes that work: 1, 2, 4, 8",
        ),
        (["launch", "{machine}", "--run", "a/b", "configs/llama_1b.py"], "--run must be letters, digits"),
        (["launch", "{machine}", "--restarts", "-1", "configs/llama_1b.py"], "--restarts must be 0 or more: got -1"),
        (["launch", "{machine}", "--env", "NOT_SET_ANYWHERE", "configs/llama_1b.py"], "--env NOT_SET_ANYWHERE takes its value"),
        (["create", "nowhere.toml"], "no machine file nowhere.toml; copy one of"),
    ],
)
def test_bad_input_is_one_line(arguments, words):
    done = tpu_vm(*(argument.format(machine=f"{MACHINES}/v5e-8.toml") for argument in arguments))
    assert done.returncode == 1 and done.stderr.startswith("error: ") and words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_where_jaxllm_cannot_be_imported_a_launch_goes_on_and_says_so(tmp_path):
    (tmp_path / "jax.py").write_text("raise ImportError('no jax here')")
    launch = ("launch", "--dry-run", f"{MACHINES}/v5e-8.toml", "configs/llama_1b.py", "--model.num-layer", "2")
    done = tpu_vm(*launch, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0 and "gcloud compute tpus tpu-vm create" in done.stdout
    assert done.stdout.splitlines()[0] == (
        "# options of the recipe are not checked here: jaxllm cannot be imported here, no jax here"
    )


def test_no_gcloud_is_said(tmp_path):
    done = tpu_vm("create", f"{MACHINES}/v5e-8.toml", PATH=str(tmp_path))
    assert done.returncode == 1 and "gcloud is not installed" in done.stderr and "--dry-run" in done.stderr


@pytest.mark.parametrize(
    ("verb", "said"), [("describe", "PERMISSION_DENIED: log in first"), ("delete", "ended with exit code 1, see above")]
)
def test_what_gcloud_says_is_passed_on(tmp_path, verb, said):
    gcloud = tmp_path / "gcloud"
    refusal = f'if [ "$4" = {verb} ]; then echo "PERMISSION_DENIED: log in first" >&2; exit 1; fi'
    gcloud.write_text(f'#!/bin/sh\n{refusal}\necho \'{{"state": "READY"}}\'\n')
    gcloud.chmod(0o755)
    done = tpu_vm("delete", f"{MACHINES}/v5e-8.toml", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1 and said in done.stderr


def test_the_readme_names_every_verb():
    readme = (ROOT / "scripts" / "tpu_vm" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+) my\.toml", readme, re.MULTILINE)
    verbs = re.search(r"invalid choice.*\(choose from (.*)\)", tpu_vm("nothing").stderr)
    assert verbs and sorted(named) == sorted(re.findall(r"\w+", verbs[1]))
    assert "Not run on a TPU VM by us" in readme
