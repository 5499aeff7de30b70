"""What a program's text says of a step on devices that were measured."""

# ruff: noqa: E501

import dataclasses

import pytest

from jaxllm.plan.here import here_step_time, operation_time, reduced_rate, transposed_rows, with_distances
from jaxllm.plan.hlo import parse
from jaxllm.plan.rates import NEW, Rates
from tests.plan.test_traffic import OUT, TEXT

RATES = Rates(
    products=1e3, bandwidth=((1, 1e6), (10**9, 1e6)), transposed=((1, 1e5), (10**4, 1e5)), elementwise=1e9,
    reduced={("add", True): 1e2, ("add", False): 2e2, ("maximum", True): 3e2, ("maximum", False): 4e2},
    curves={"tanh": 1e2, "exponential": 1e1}, call=0.25, new_memory=1e-6, meeting=2.0, sum_bandwidth=1e6,
)  # fmt: skip


def by_flops(product) -> float:
    return product.flops / 1e3


def times(text: str, name: str, rates: Rates = RATES, **given):
    program = parse(text)
    main = program.computations["main"]
    return operation_time(program, main.instructions[name], main, rates, timed=by_flops, **given)


def test_an_operation_takes_as_long_as_its_slowest_side():
    curved, product = times(TEXT, "x"), times(TEXT, "y")
    assert curved.total == pytest.approx(8 * 16 / 1e2 + 0.25) and curved.products == 0
    assert product.total == pytest.approx(2 * 8 * 16 * 32 / 1e3 + 0.25)
    assert times(TEXT.replace("tanh(", "exponential("), "x").total == pytest.approx(8 * 16 / 1e1 + 0.25)
    assert times(TEXT.replace("tanh(", "exponential-minus-one("), "x").total == pytest.approx(8 * 16 / 1e1 + 0.25)


def test_a_product_takes_what_its_form_was_timed_to_take():
    seen = []
    seconds, _ = here_step_time(parse(TEXT), RATES, flops=1.0, timed=lambda product: seen.append(product) or 7.0)
    assert [(product.left, product.right, product.summed) for product in seen] == [((8, 16), (16, 32), ((1, 0),))]
    assert seconds.compute == pytest.approx(here_step_time(parse(TEXT), RATES, flops=1.0, timed=lambda _: 5.0)[0].compute + 2)


def test_a_step_is_its_operations_and_its_meetings_and_never_under_its_flops():
    seconds, parts = here_step_time(parse(TEXT), RATES, flops=1e6, timed=by_flops)
    assert seconds.exposed == pytest.approx(2.0 + OUT / 1e6) and seconds.hidden == 0
    assert list(parts)[0] == "feed-forward" and sum(parts.values()) == pytest.approx(seconds.compute)
    assert seconds.step == pytest.approx(1e6 / 1e3 + seconds.exposed)  # FLOPs at peak are longer than what was seen to run
    short = here_step_time(parse(TEXT), RATES, flops=1.0, timed=by_flops)[0]
    assert short.step == pytest.approx(short.compute + short.exposed)


def test_memory_that_the_system_hands_out_in_every_step_takes_its_time():
    kept, new = (here_step_time(parse(TEXT), RATES, flops=1.0, temporaries=size, timed=by_flops) for size in (NEW - 1, NEW))
    assert new[0].compute == pytest.approx(kept[0].compute + NEW * 1e-6) and sum(new[1].values()) == pytest.approx(
        new[0].compute
    )
    assert new[1]["memory from the system"] == pytest.approx(NEW * 1e-6) and "memory from the system" not in kept[1]


def test_rates_between_measured_sizes_lie_between_them():
    rates = dataclasses.replace(RATES, bandwidth=((2**10, 100.0), (2**20, 1.0)), transposed=((2**2, 8.0), (2**4, 2.0)))
    assert rates.bandwidth_of(1) == pytest.approx(100) and rates.bandwidth_of(2**40) == pytest.approx(1)
    assert rates.bandwidth_of(2**15) == pytest.approx(10)
    assert rates.transposed_of(2**3) == pytest.approx(4)


CHAIN = """HloModule chain

ENTRY %main (a: f32[256], b: f32[1024]) -> f32[256] {
  %a = f32[256]{0} parameter(0)
  %b = f32[1024]{0} parameter(1)
  %c = f32[256]{0} negate(%a)
  %d = f32[1024]{0} negate(%b)
  %e = f32[256]{0} bitcast(%c)
  %f = f32[256]{0} negate(%e)
  ROOT %g = f32[256]{0} negate(%f)
}
"""


def test_what_was_moved_since_an_array_was_used_decides_which_cache_it_is_in():
    """What is used for the first time was used in the step before."""
    distances = {row[0].name: distance for row, distance in with_distances(parse(CHAIN))}
    small, large = 2 * 1024, 2 * 4096
    step = 3 * small + large
    assert distances["c"] == distances["d"] == step
    assert distances["f"] == large and distances["g"] == 0
    rates = dataclasses.replace(RATES, bandwidth=((small, 1e6), (10 * small, 1e3)), call=0.0)
    near, far = (times(CHAIN, "g", rates, distance=distance).traffic for distance in (0.0, 10.0 * small))
    assert near == pytest.approx(small / 1e6) and far == pytest.approx(small / 1e3)  # an operation's own bytes count, too


LOOP = """HloModule loop

%body (state: (s32[], f32[256], f32[1024])) -> (s32[], f32[256], f32[1024]) {
  %state = (s32[], f32[256]{0}, f32[1024]{0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[256]{0} get-tuple-element(%state), index=1
  %y = f32[1024]{0} get-tuple-element(%state), index=2
  %p = f32[256]{0} negate(%x)
  %q = f32[1024]{0} negate(%y)
  ROOT %next = (s32[], f32[256]{0}, f32[1024]{0}) tuple(%i, %p, %q)
}

%more (state: (s32[], f32[256], f32[1024])) -> pred[] {
  %state = (s32[], f32[256]{0}, f32[1024]{0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (zero: s32[], a: f32[256], b: f32[1024]) -> f32[256] {
  %zero = s32[] parameter(0)
  %a = f32[256]{0} parameter(1)
  %b = f32[1024]{0} parameter(2)
  %start = (s32[], f32[256]{0}, f32[1024]{0}) tuple(%zero, %a, %b)
  %loop = (s32[], f32[256]{0}, f32[1024]{0}) while(%start), condition=%more, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %first = f32[256]{0} get-tuple-element(%loop), index=1
  %second = f32[1024]{0} get-tuple-element(%loop), index=2
  %r = f32[256]{0} negate(%first)
  ROOT %s = f32[1024]{0} negate(%second)
}
"""


def test_what_a_loop_reads_was_used_in_the_turn_before():
    """Only the first of its turns reads what was used long before. Elements of its state are arrays of their own."""
    distances = {row[0].name: distance for row, distance in with_distances(parse(LOOP))}
    small, large = 2 * 1024, 2 * 4096
    step = 6 * (small + large)
    assert distances["p"] == distances["q"] == step / 5
    assert distances["r"] == distances["s"] == step  # not what the loop's other results are


@pytest.mark.parametrize(
    ("before", "after", "rows"),
    [
        ("f32[512,256]{1,0}", "f32[256,512]{1,0} transpose(%x), dimensions={1,0}", 512),
        ("f32[8,4,128,64]{3,2,1,0}", "f32[8,4,64,128]{3,2,1,0} transpose(%x), dimensions={0,1,3,2}", 128),
        ("f32[8,128,64]{2,1,0}", "f32[64,8,128]{2,1,0} transpose(%x), dimensions={2,0,1}", 8 * 128),
        ("f32[512,256]{1,0}", "f32[512,256]{0,1} copy(%x)", 512),  # the axes stay, what lies together does not
        ("f32[512,256]{1,0}", "f32[256,512]{0,1} transpose(%x), dimensions={1,0}", 0),  # as it lies there nothing moves
        ("f32[8,4,128,64]{3,2,1,0}", "f32[8,128,4,64]{3,2,1,0} transpose(%x), dimensions={0,2,1,3}", 0),  # rows stay rows
        ("f32[8,128,2]{2,1,0}", "f32[8,2,128]{2,1,0} transpose(%x), dimensions={0,2,1}", 0),  # a line of memory holds eight rows
        ("f32[8,64,1]{2,1,0}", "f32[8,1,64]{2,1,0} transpose(%x), dimensions={0,2,1}", 0),
        ("f32[512,256]{1,0}", "f32[512,256]{1,0} copy(%x)", 0),
        ("f32[512,256]{1,0}", "f32[512,256]{1,0} negate(%x)", 0),
        ("f32[1,1]{1,0}", "f32[1,1]{0,1} copy(%x)", 0),
    ],
)  # fmt: skip
def test_rows_that_are_gathered_from(before, after, rows):
    text = f"HloModule moved\n\nENTRY %main (x: f32[]) -> f32[] {{\n  %x = {before} parameter(0)\n  ROOT %y = {after}\n}}\n"
    main = parse(text).computations["main"]
    assert transposed_rows(main.instructions["y"], main) == rows
    expected = 2 * main.instructions["x"].bytes / (1e5 if rows else 1e6)
    assert times(text, "y").traffic == pytest.approx(expected)


REDUCED = """HloModule reduced

%most (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] maximum(%a, %b)
}

%total (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

ENTRY %main (x: f32[8,64], zero: f32[]) -> f32[8] {
  %x = f32[8,64]{1,0} parameter(0)
  %zero = f32[] parameter(1)
  ROOT %y = OPERATION
}
"""


@pytest.mark.parametrize(
    ("operation", "rate"),
    [
        ("f32[8]{0} reduce(%x, %zero), dimensions={1}, to_apply=%total", 1e2),
        ("f32[64]{0} reduce(%x, %zero), dimensions={0}, to_apply=%total", 2e2),
        ("f32[8,2]{1,0} reduce-window(%x, %zero), window={size=1x32 stride=1x32}, to_apply=%most", 3e2),
        ("f32[1,64]{1,0} reduce-window(%x, %zero), window={size=8x1 stride=8x1}, to_apply=%most", 4e2),
    ],
)
def test_a_reduction_takes_as_long_as_its_kind_along_its_axis(operation, rate):
    text = REDUCED.replace("OPERATION", operation)
    program = parse(text)
    main = program.computations["main"]
    assert reduced_rate(program, main.instructions["y"], main.instructions["x"], RATES) == rate
    assert times(text, "y").arithmetic == pytest.approx(8 * 64 * 4 / rate)
