import json
import os
import struct
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from jaxllm.training.metrics_file import read_metrics
from jaxllm.training.run_log import LogConfig, RunLog

QUIET = LogConfig(every=5, tensorboard=False)


def log_steps(folder, steps, *, total=100, resume_step=None, config=QUIET):
    with RunLog(folder, config, total, resume_step) as log:
        for step in steps:
            log.train(step, {"loss": jnp.float32(1 / step), "mfu": None})


def test_a_float32_keeps_every_digit(tmp_path):
    log_steps(tmp_path, range(1, 8))
    records = read_metrics(tmp_path)
    assert [r["step"] for r in records] == list(range(1, 8))
    assert list(records[0]) == ["step", "split", "loss", "mfu"]
    assert all(np.float32(r["loss"]) == np.float32(1 / r["step"]) and r["mfu"] is None for r in records)


def test_written_every_few_steps_and_on_flush(tmp_path):
    with RunLog(tmp_path, QUIET, 100) as log:
        for step in range(1, 9):
            log.train(step, {"loss": 1.0})
        assert len(read_metrics(tmp_path)) == 5
        log.flush()
        assert len(read_metrics(tmp_path)) == 8


def test_an_evaluation_comes_after_the_steps_before_it(tmp_path):
    with RunLog(tmp_path, QUIET, 100) as log:
        log.train(1, {"loss": 1.0})
        log.evaluation(1, "validation", {"loss": np.float32(2.5), "tokens": 7})
    assert read_metrics(tmp_path)[1] == {"step": 1, "split": "validation", "loss": 2.5, "tokens": 7.0}
    assert len(read_metrics(tmp_path)) == 2


def test_a_log_in_a_bucket_is_sent_now_and_then_and_before_a_checkpoint(tmp_path, capsys, monkeypatch):
    sent = []

    def publish():
        sent.append(len(read_metrics(tmp_path)))
        if len(sent) == 2:
            raise PermissionError(13, "no access", "gs://bucket/run")

    with RunLog(tmp_path, QUIET, 100, None, publish) as log:
        for step in range(1, 21):
            log.train(step, {"loss": 1.0})
        assert sent == [5]
        log.train(21, {"loss": 1.0})
        log.settle()
        assert sent == [5, 21]
        assert "warning: the log is behind in the bucket: gs://bucket/run: no access" in capsys.readouterr().out
        later = time.monotonic() + 31
        monkeypatch.setattr("jaxllm.training.run_log.time.monotonic", lambda: later)
        log.train(25, {"loss": 1.0})
        assert sent == [5, 21, 22]
    assert sent == [5, 21, 22, 22]
    with RunLog(tmp_path, QUIET, 100, None, publish, enabled=False) as log:
        log.settle()
    assert len(sent) == 4


def test_resume_drops_later_steps_and_half_a_line(tmp_path):
    log_steps(tmp_path, range(1, 11))
    file = tmp_path / "metrics.jsonl"
    before = file.read_bytes()
    file.write_bytes(before + b'{"step": 6, "spl')
    log_steps(tmp_path, range(7, 11), resume_step=6)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_without_a_step_to_resume_from_the_log_starts_afresh(tmp_path):
    log_steps(tmp_path, range(1, 11))
    log_steps(tmp_path, range(1, 3))
    assert len(read_metrics(tmp_path)) == 2


def test_a_number_that_is_not_finite_is_null(tmp_path):
    with RunLog(tmp_path, QUIET, 2) as log:
        log.train(1, {"loss": float("nan"), "grad_norm": float("inf")})
    assert read_metrics(tmp_path) == [{"step": 1, "split": "train", "loss": None, "grad_norm": None}]


def test_only_the_first_process_writes(tmp_path, capsys):
    with RunLog(tmp_path / "run", QUIET, 10, enabled=False) as log:
        log.train(10, {"loss": 1.0})
        log.evaluation(10, "validation", {"loss": 1.0})
        log.message("hello")
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""


def test_plain_lines_read_well_in_a_file(tmp_path, capsys):
    with RunLog(tmp_path, QUIET, 10) as log:
        for step in range(1, 11):
            log.train(step, {"loss": 2.0, "tokens_per_second": 12345.6})
            if step == 5:
                log.evaluation(step, "validation", {"loss": 1.5})
        log.message("saved [step 10]")
    assert capsys.readouterr().out.splitlines() == [
        " 5/10  loss 2.0000  12,346 tokens/s",
        " 5/10  validation loss 1.5000",
        "10/10  loss 2.0000  validation 1.5000  12,346 tokens/s  0:00 left",
        "saved [step 10]",
    ]


def test_time_left_is_measured_over_the_latest_looks(tmp_path, capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with RunLog(tmp_path, LogConfig(every=10, tensorboard=False), 1000) as log:
        for step in range(1, 691):
            now += 100.0 if step <= 100 else 0.5
            log.train(step, {"loss": 2.0})
    lines = dict(line.split("  loss 2.0000") for line in capsys.readouterr().out.splitlines())
    assert lines["  10/1000"] == ""  # one look is no measurement
    assert lines[" 100/1000"] == "  25:00:00 left"
    assert lines[" 680/1000"] == "  2:40 left"  # the slow beginning is forgotten


def test_messages_do_not_break_the_live_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with RunLog(tmp_path, QUIET, 10) as log:
        log.train(5, {"loss": 2.0})
        log.message("saved [step 5]")
    assert "\x1b[2Ksaved [step 5]\n" in capsys.readouterr().out


def tensorboard_values(file):
    """(step, name, value) of each scalar: a record is length, checksum, protobuf, checksum."""
    data, values = file.read_bytes(), []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + size])
        values += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + size :]
    return values


def test_tensorboard_gets_the_last_step_of_each_stretch(tmp_path):
    config = LogConfig(every=5)
    log_steps(tmp_path, range(1, 11), config=config)
    log_steps(tmp_path, range(6, 11), config=config, resume_step=5)
    first, second = sorted((tmp_path / "tensorboard").iterdir(), key=lambda file: int(file.suffix[1:]))
    assert tensorboard_values(first) == [(5, "train/loss", np.float32(1 / 5)), (10, "train/loss", np.float32(1 / 10))]
    assert tensorboard_values(second) == [(10, "train/loss", np.float32(1 / 10))]


def test_wandb_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"pip install 'jaxllm\[wandb\]'"):
        RunLog(tmp_path, LogConfig(wandb_project="demo", tensorboard=False), 10)


@pytest.mark.slow
def test_wandb_offline_is_given_each_run_under_one_id(tmp_path):
    """Weights & Biases itself, in processes of its own: it starts a service that would outlive this one's patience."""
    for first, last, resume in [(1, 5, None), (6, 10, 5)]:
        program = WANDB_PROGRAM.format(folder=str(tmp_path), first=first, last=last, resume=resume)
        environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}
        subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, env=environment, timeout=120)
    runs = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    run_id = (tmp_path / "wandb_run_id").read_text()
    assert [path.name for path in runs] == [f"run-{run_id}.wandb"] * 2
    histories = [wandb_history(path) for path in runs]
    assert [h["step"] for h in histories[0]] == [5] and [h["step"] for h in histories[1]] == [10]
    assert histories[0][0]["train/loss"] == pytest.approx(1 / 5) and histories[1][0]["train/loss"] == pytest.approx(1 / 10)


WANDB_PROGRAM = """
from pathlib import Path
from jaxllm.training import LogConfig, RunLog
from tests.training.test_run_log import log_steps
config = LogConfig(every=5, tensorboard=False, wandb_project="demo")
log_steps(Path({folder!r}), range({first}, {last} + 1), config=config, resume_step={resume})
"""


def wandb_history(path) -> list[dict]:
    """The logged rows in the file of an offline run: after 7 bytes, records of checksum, length, type 1 (whole) and message."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, rows = path.read_bytes(), 7, []
    assert len(data) < 2**15, "longer files are cut into blocks"
    while at < len(data):
        length, kind = struct.unpack_from("<4xHB", data, at)
        assert kind == 1
        record = Record.FromString(data[at + 7 : at + 7 + length])
        at += 7 + length
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1}) + "\nhello\n")
    with pytest.raises(ValueError, match="line 2 is not"):
        read_metrics(tmp_path)


def test_a_folder_without_a_log(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is none in"):
        read_metrics(tmp_path)


@pytest.mark.parametrize(("field", "value"), [("every", 0), ("wandb_project", "")])
def test_bad_config(field, value):
    with pytest.raises(ValueError, match=f"log.{field} must"):
        LogConfig(**{field: value})
