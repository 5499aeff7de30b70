"""The report of a plan: one page with pictures that say what the figures say."""

import dataclasses
import re
import xml.etree.ElementTree as ElementTree

import pytest

from jaxllm.plan import Collective, Memory, Plan, StepTime, write_plan_report
from jaxllm.plan.picture import memory_bar, roofline, time_bars

GB = 10**9
MEMORY = Memory(
    parameters=2 * GB, optimizer=4 * GB, gradients=2 * GB, cache=0, batch=0, arguments=6 * GB, temporaries=6 * GB, outputs=0,
    aliased=0, capacity=16 * GB,
)  # fmt: skip
SECONDS = StepTime(flops=0.5, compute=0.8, traffic=0.4, hidden=0.3, exposed=0.2)
PLAN = Plan(
    recipe="a<b", phase="train", topology="v5e:4x4", slices=1, device="TPU v5 lite", devices=16, mesh={"fsdp": 16},
    parameters=10**9, tokens_per_step=32768, unit="tokens", flops_per_step=16e14, memory=MEMORY,
    collectives=[Collective(kind="all-gather", axes=("fsdp",), count=7, bytes=4 * GB, exposed_bytes=GB)],
    collective_seconds=[0.02], traffic_bytes=300 * GB, kernel_flops=1e12, cycles={"attention": 75, "feed-forward": 25},
    shares={"attention": 0.75, "feed-forward": 0.25}, seconds=SECONDS, peak_flops=2e14, bandwidth=800e9, lower_seconds=1.0,
    compile_seconds=30.0, attention_kernel="splash", warnings=("2 loops of unknown length",),
)  # fmt: skip


def numbers(svg: str, tag: str, name: str) -> list[float]:
    root = ElementTree.fromstring(svg[: svg.index("</svg>") + 6])
    return [float(node.attrib[name]) for node in root.iter(tag)]


def test_the_bar_has_its_parts_in_proportion_and_the_capacity_behind_them():
    wide, line = numbers(memory_bar(MEMORY), "rect", "width"), numbers(memory_bar(MEMORY), "line", "x1")[0]
    assert wide == pytest.approx([wide[0], 2 * wide[0], wide[0], 2 * wide[0]], abs=0.2)
    assert (line - 10) / sum(wide) == pytest.approx(16 / 12, rel=0.01)
    over = memory_bar(dataclasses.replace(MEMORY, capacity=6 * GB))
    assert numbers(over, "line", "x1")[0] - 10 == pytest.approx(sum(numbers(over, "rect", "width")) / 2, rel=0.01)


def test_the_step_lies_under_the_roof():
    svg = roofline(PLAN)
    assert svg is not None
    roof = [tuple(map(float, point.split(","))) for point in re.findall(r'points="([^"]*)"', svg)[0].split()]
    x, y = numbers(svg, "circle", "cx")[0], numbers(svg, "circle", "cy")[0]
    (x0, y0), (x1, y1), _ = roof
    on_roof = y1 if x > x1 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    assert y > on_roof  # the picture's y grows downwards
    as_fast_as_can_be = dataclasses.replace(SECONDS, compute=0.0, flops=0.5, traffic=0.5, hidden=0.0, exposed=0.0)
    touching = roofline(dataclasses.replace(PLAN, seconds=as_fast_as_can_be, traffic_bytes=GB))
    assert touching is not None and numbers(touching, "circle", "cy")[0] == pytest.approx(
        float(re.findall(r'points="([^"]*)"', touching)[0].split()[1].split(",")[1]), abs=0.2
    )


def test_the_step_is_the_longest_bar_and_is_what_its_parts_make():
    svg = time_bars(PLAN)
    assert svg is not None
    flops, compute, traffic, hidden, exposed, step = numbers(svg, "rect", "width")
    assert step == pytest.approx(compute + exposed, abs=0.2) and step == max(flops, compute, traffic, hidden, exposed, step)


def test_the_page_is_whole_and_says_what_is_estimated(tmp_path):
    path = write_plan_report(PLAN, tmp_path / "report.html", command="jaxllm plan a.py --price 2", price=2.0)
    page = path.read_text(encoding="utf-8")
    assert "a&lt;b" in page and "a<b" not in page and page.count("<svg") == 3 == page.count("</svg>")
    assert not re.search(r"https?://|src=|@import", page)
    for words in (
        "fits",
        "1 s",
        "all-gather",
        "25%",
        "75.0%",
        "2 loops of unknown length",
        "jaxllm plan a.py",
        "MFU, estimated",
    ):
        assert words in page, words
    hourly = 16 * 2.0 / 3600
    assert f"{1e9 / 32768 * 1.0 * hourly:,.2f}" in page


def test_the_page_of_a_step_that_does_not_fit_has_advice_and_no_times(tmp_path):
    memory = dataclasses.replace(MEMORY, capacity=6 * GB)
    plan = dataclasses.replace(PLAN, memory=memory, seconds=None, collectives=[], collective_seconds=[], shares={}, cycles={})
    page = write_plan_report(plan, tmp_path / "report.html", command="jaxllm plan a.py").read_text(encoding="utf-8")
    assert "does not fit" in page and "--mesh.fsdp" in page and page.count("<svg") == 1 and "Roofline" not in page
