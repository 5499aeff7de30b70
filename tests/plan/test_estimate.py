"""From cycles, FLOPs and bytes to an estimate."""

import dataclasses

import pytest

from jaxllm.plan import Collective, StepTime
from jaxllm.plan.estimate import INTERCONNECTS, network_seconds, part_of, seconds_by_part, tpu_step_time
from jaxllm.plan.hlo import parse
from jaxllm.plan.slices import SLOW_NETWORK
from tests.plan.test_hlo import TEXT

LINK = INTERCONNECTS["TPU v5 lite"]
ROW = Collective(kind="all-gather", axes=("fsdp",), count=1, bytes=4 * 10**9, exposed_bytes=10**9)
TIME = StepTime(flops=1.0, compute=3.0, traffic=1.0, hidden=0.5, exposed=0.5)


@pytest.mark.parametrize(
    ("name", "times", "part"),
    [
        ("jit(train_step)/jvp(Transformer)/while/body/closed_call/Block/Block._residual/attention/rope", 32, "attention"),
        ("jit(train_step)/jvp(Transformer)/while/body/Block/ffw/up", 32, "feed-forward"),
        ("jit(train_step)/jvp()/shard_map/while/body/closed_call/jvp(BTD,DV->BTV)", 64, "unembedding"),
        ("jit(train_step)/jvp(Transformer)/while/body/Block/add", 32, "other layers"),
        ("jit(train_step)/add", 1, "optimizer and the rest"),
        ("", 1, "optimizer and the rest"),
        ("", 32, "other layers"),  # such as weights that the compiler gathers in the loop over layers
        ("convert.4", 32, "other layers"),
    ],
)
def test_parts(name, times, part):
    assert part_of(name, times) == part


def test_kernels_without_cycles_are_a_part_of_their_own():
    plain = seconds_by_part(parse(TEXT), LINK, 0.0, 2e14)
    assert sum(plain.values()) == pytest.approx(5 * 110 / LINK.clock)
    parts = seconds_by_part(parse(TEXT), LINK, 1e14, 2e14)
    assert list(parts)[0] == "attention kernels" and parts["attention kernels"] == pytest.approx(1.0)
    assert {part: seconds for part, seconds in parts.items() if part != "attention kernels"} == plain


def test_an_axis_over_a_part_of_a_slice_has_its_share_of_the_links():
    whole, part = ({"data": 1, "fsdp": 16}, {"data": 4, "fsdp": 4})
    assert network_seconds(ROW.bytes, ROW, whole, LINK) == pytest.approx(4e9 / LINK.bandwidth)
    assert network_seconds(ROW.bytes, ROW, part, LINK) == pytest.approx(2 * 4e9 / LINK.bandwidth)


def test_between_slices_the_network_is_slow():
    row = dataclasses.replace(ROW, between_slices=True, axes=("replica",))
    assert network_seconds(row.bytes, row, {"fsdp": 16}, LINK) == 4e9 / SLOW_NETWORK


def test_what_is_waited_for_is_added_and_the_rest_runs_beside():
    given = {"flops": 0.1, "compute": 0.2, "traffic": 0.05}
    seconds = tpu_step_time([ROW], {"fsdp": 16}, LINK, **given)
    assert (seconds.exposed, seconds.hidden) == pytest.approx((1e9 / LINK.bandwidth, 3e9 / LINK.bandwidth))
    assert seconds.step == pytest.approx(0.2 + seconds.exposed)


@pytest.mark.parametrize(
    ("changes", "bound"),
    [({}, "compute"), ({"traffic": 1.1}, "memory"), ({"exposed": 3.0}, "network"), ({"flops": 9.0, "exposed": 3.0}, "compute")],
)
def test_what_a_step_is_bound_by(changes, bound):
    assert dataclasses.replace(TIME, **changes).bound == bound
