"""Seconds of operations on the devices here: never nonsense, whatever else the machine does."""

import math
import sys

import jax
import jax.numpy as jnp
import pytest

from jaxllm.plan import timed
from jaxllm.plan.rates import CURVES, _meeting, measured_rates
from jaxllm.plan.timed import MOST_TURNS, ROUND, TooBusy, loop_seconds

TURN, CALL = 1e-5, 1e-3
"""Seconds, of a clock that says what a test wants."""


@pytest.fixture
def clock(monkeypatch):
    """Puts seconds in place of those measured, by turns and by which measurement it is."""
    calls: list[int] = []

    def put(seconds):
        def measured(call, meets, rounds=timed.ROUNDS, at_least=timed.AT_LEAST):
            turns = call()
            calls.append(turns)
            return seconds(turns, len(calls))

        monkeypatch.setattr(timed, "_compiled", lambda *_: lambda turns, *_: turns)
        monkeypatch.setattr(timed, "_seconds", measured)
        return calls

    return put


def test_so_many_turns_that_they_outlast_the_call(clock):
    calls = clock(lambda turns, number: CALL + turns * TURN)
    assert loop_seconds(jnp.sin, [(8,)]) == pytest.approx(TURN)
    assert (max(calls) - 1) * TURN >= ROUND


def test_turns_that_seemed_enough_for_other_work_are_measured_again(clock):
    """Another program holds up the looks at how many turns are needed; alone they take no time to speak of."""
    clock(lambda turns, number: CALL + turns * TURN + (1.0 if number == 2 else 0.0))
    assert loop_seconds(jnp.sin, [(8,)]) == pytest.approx(TURN)


def test_a_call_that_was_held_up_is_measured_again(clock):
    clock(lambda turns, number: CALL + turns * TURN + (10.0 if number == 1 else 0.0))
    assert loop_seconds(jnp.sin, [(8,)]) == pytest.approx(TURN)


def test_what_cannot_be_measured_is_refused(clock):
    calls = clock(lambda turns, number: CALL)
    with pytest.raises(
        TooBusy, match="turns of a loop must take longer than one: they took 0 s more; this machine is too busy to be"
    ):
        loop_seconds(jnp.sin, [(8,)])
    assert max(calls) > MOST_TURNS


def test_a_large_sum_takes_longer_than_a_small_one(monkeypatch):
    seen = iter([3.0, 3.0, 1.0, 5.0])
    monkeypatch.setattr("jaxllm.plan.rates.loop_seconds", lambda *_, **__: next(seen))
    assert _meeting(8) == (1.0, 2.0)
    monkeypatch.setattr("jaxllm.plan.rates.loop_seconds", lambda *_, **__: 3.0)
    with pytest.raises(TooBusy, match="to add up 8 bytes over all devices must take longer than one number: got 3 and 3 s"):
        _meeting(8)


def test_rates_are_those_of_a_machine(monkeypatch):
    """Of two devices of the eight, and of the slowest of the operations on single elements."""
    two = jax.devices()[:2]
    monkeypatch.setattr("jaxllm.plan.rates.CURVES", {name: CURVES[name] for name in ("exponential", "power")})
    monkeypatch.setattr("jaxllm.plan.rates.ROWS", (32, 8192))
    monkeypatch.setattr(jax, "devices", lambda: two)
    rates = measured_rates.__wrapped__("float32")
    speeds = [speed for sized in (rates.bandwidth, rates.transposed) for _, speed in sized]
    speeds += [*rates.reduced.values(), *rates.curves.values(), rates.elementwise, rates.sum_bandwidth]
    assert all(1e6 < speed < 1e12 for speed in speeds), rates
    assert 1e8 < rates.products < 1e14 and 1e-9 < rates.call < 1e-3 and 1e-8 < rates.meeting < 10
    assert rates.sum_bandwidth < max(speed for _, speed in rates.bandwidth)
    assert math.isfinite(rates.new_memory) and rates.new_memory < 1e-7
    if sys.platform == "linux":  # pages are made anew, and emptied
        assert rates.new_memory > 1e-12
