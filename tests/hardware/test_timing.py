from types import SimpleNamespace

import pytest

from jaxllm.hardware import StepTimer, mfu, timing


class Clock:
    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_first_mark_is_compile_time_then_intervals(clock):
    timer = StepTimer(tokens_per_step=768)
    clock.now += 5.0
    assert timer.mark(1) is None
    assert timer.compile_seconds == 5.0
    clock.now += 2.0
    interval = timer.mark(11)
    assert interval is not None
    assert (interval.steps, interval.seconds, interval.step_seconds) == (10, 2.0, 0.2)
    assert interval.tokens_per_second == 3840.0


def test_pauses_are_left_out_once(clock):
    timer = StepTimer(tokens_per_step=1, first_step=20)
    timer.mark(21)
    clock.now += 1.0
    with timer.paused():
        clock.now += 60.0
    clock.now += 1.0
    interval = timer.mark(23)
    assert interval is not None and interval.seconds == 2.0 and interval.steps == 2
    clock.now += 3.0
    later = timer.mark(24)
    assert later is not None and later.seconds == 3.0


def test_marks_must_go_up(clock):
    timer = StepTimer(tokens_per_step=1)
    timer.mark(3)
    with pytest.raises(AssertionError, match="marked step 3, then 3"):
        timer.mark(3)


def device(kind: str, platform: str) -> SimpleNamespace:
    return SimpleNamespace(device_kind=kind, platform=platform, process_index=0)


def test_mfu_of_accelerators_counts_each():
    one = mfu(1e9, 98_500.0, [device("TPU v5e", "tpu")], "bfloat16")
    four = mfu(1e9, 98_500.0, [device("TPU v5e", "tpu")] * 4, "bfloat16")
    assert one == pytest.approx(0.5) and four == pytest.approx(0.125)


def test_mfu_of_virtual_cpu_devices_counts_the_machine_once(monkeypatch):
    monkeypatch.setattr(timing, "peak_flops", lambda kind, dtype: 1e11)
    assert mfu(1e6, 50_000.0, [device("cpu", "cpu")] * 8, "float32") == pytest.approx(0.5)


def test_mfu_is_unknown_where_the_peak_is():
    assert mfu(1e6, 1.0, [device("Toaster 3000", "gpu")], "bfloat16") is None
    assert mfu(1e6, 1.0, [device("cpu", "cpu")], "bfloat16") is None
