"""Reading HLO text: loops, branches, fusions, bytes."""
# ruff: noqa: E501

import pytest

from jaxllm.plan.hlo import array_shapes, parse, shape_bytes, shape_elements

TEXT = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused (p: bf16[8,4]) -> bf16[8,16] {
  %p = bf16[8,4]{1,0} parameter(0)
  ROOT %gathered = bf16[8,16]{1,0} all-gather(%p), channel_id=1, replica_groups=[2,4]<=[8], dimensions={1}, metadata={op_name="jit(step)/ffw/up"}
}

%body (state: (s32[], f32[16])) -> (s32[], f32[16]) {
  %state = (s32[], f32[16]{0:T(256)}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[16]{0} get-tuple-element(%state), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %weights = bf16[8,16]{1,0} fusion(%x), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/ffw/up"}, backend_config={"estimated_cycles":"100"}
  %again = bf16[8,16]{1,0} fusion(%x), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"10"}
  %y = f32[16]{0} all-reduce(%x), channel_id=2, replica_groups={{0,4},{1,5},{2,6},{3,7}}, to_apply=%add
  ROOT %out = (s32[], f32[16]{0}) tuple(%next, %y)
}

%condition (state: (s32[], f32[16])) -> pred[] {
  %state = (s32[], f32[16]{0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %end = s32[] constant(9)
  ROOT %goes_on = pred[] compare(%i, %end), direction=LT
}

ENTRY %main (x: f32[16]) -> f32[16] {
  %x = f32[16]{0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[16]{0}) tuple(%zero, %x)
  %loop = (s32[], f32[16]{0}) while(%start), condition=%condition, body=%body
  %kernel = f32[16]{0} custom-call(%x), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{}"
}}, metadata={op_name="splash"}
  ROOT %last = f32[16]{0} get-tuple-element(%loop), index=1
}
"""


def test_a_loop_counts_as_often_as_it_turns():
    """From 0 by 2 to 9: five times."""
    program = parse(TEXT)
    times = {instruction.name: count for instruction, _, count in program.executed()}
    assert program.entry == "main" and times["loop"] == 1 and times["weights"] == 5
    assert sum(i.cycles * count for i, _, count in program.executed()) == 5 * 110


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("direction=LT", "direction=NE"),
        ("s32[] constant(9)", "s32[] custom-call(%state)"),
        ("%zero = s32[] constant(0)", "%zero = s32[] add(%x, %x)"),
        ("add(%i, %two)", "add(%i, %i)"),  # its steps grow
        ("add(%i, %two)", "multiply(%i, %two)"),
        ("add(%i, %two)", "add(%other, %two)"),
        ("%two = s32[] constant(2)", "%two = s32[] get-tuple-element(%state), index=1"),
    ],
)
def test_a_loop_of_unknown_length_is_named_and_turns_once(old, new):
    program = parse(TEXT.replace(old, new))
    assert program.unknown_loops() == ("loop",)
    assert {i.name: count for i, _, count in program.executed()}["weights"] == 1
    assert parse(TEXT).unknown_loops() == ()


def test_a_loop_that_never_turns_counts_nothing():
    program = parse(TEXT.replace("%zero = s32[] constant(0)", "%zero = s32[] constant(9)"))
    assert {i.name: count for i, _, count in program.executed()}["weights"] == 0


BRANCHES = """HloModule choice

%short (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  ROOT %once = f32[4]{0} add(%x, %x), backend_config={"estimated_cycles":"5"}
}

%long (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  ROOT %twice = f32[4]{0} multiply(%x, %x), backend_config={"estimated_cycles":"70"}
}

ENTRY %main (p: pred[], x: f32[4]) -> f32[4] {
  %p = pred[] parameter(0)
  %x = f32[4]{0} parameter(1)
  ROOT %chosen = f32[4]{0} conditional(%p, %x, %x), true_computation=%short, false_computation=%long
}
"""


def test_of_a_conditional_the_longest_branch_counts():
    listed = "branch_computations={%short, %long}"
    for text in (BRANCHES, BRANCHES.replace("true_computation=%short, false_computation=%long", listed)):
        program = parse(text)
        assert sum(i.cycles * count for i, _, count in program.executed()) == 70
        assert program.conditionals() == 1 and parse(TEXT).conditionals() == 0


@pytest.mark.parametrize(("old", "new", "trips"), [("constant(9)", "constant(10)", 5), ("constant(2)", "constant(3)", 3)])
def test_trips_follow_end_and_step(old, new, trips):
    program = parse(TEXT.replace(old, new))
    assert {i.name: count for i, _, count in program.executed()}["weights"] == trips


ADDED = """%added (a: s32[], b: s32[]) -> s32[] {
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  ROOT %sum = s32[] add(%a, %b)
}

"""


@pytest.mark.parametrize(
    ("inside", "operands"),
    [
        (ADDED, "%i, %two"),
        (ADDED, "%two, %i"),
        (ADDED, "%two, %copied"),
        (ADDED.replace("%b = s32[] parameter(1)", "%b = s32[] constant(2)").replace(", b: s32[]", ""), "%i"),
    ],
)
def test_a_step_inside_a_fusion_is_found(inside, operands):
    text = TEXT.replace("%body (state", inside + "%body (state")
    text = text.replace("  %next = ", "  %copied = s32[] copy(%i)\n  %next = ")
    text = text.replace("add(%i, %two)", f"fusion({operands}), kind=kLoop, calls=%added")
    assert {i.name: count for i, _, count in parse(text).executed()}["weights"] == 5 and not parse(text).unknown_loops()
    other = text.replace("= s32[] add(%a, %b)", "= s32[] multiply(%a, %b)")
    assert parse(other).unknown_loops() == ("loop",)


def test_a_constant_added_to_something_else_is_no_step():
    """Though the fusion that adds it is given the element, too."""
    inside = ADDED.replace("add(%a, %b)", "add(%b, %c)").replace("  ROOT", "  %c = s32[] parameter(2)\n  ROOT")
    text = TEXT.replace("%body (state", inside + "%body (state")
    text = text.replace("  %next = ", "  %other = s32[] negate(%i)\n  %next = ")
    text = text.replace("add(%i, %two)", "fusion(%i, %two, %other), kind=kLoop, calls=%added")
    assert parse(text).unknown_loops() == ("loop",)
    assert not parse(text.replace("fusion(%i, %two, %other)", "fusion(%other, %two, %i)")).unknown_loops()


def test_trips_in_the_short_form_and_as_the_compiler_says():
    short = TEXT.replace("compare(%i, %end)", "compare(%state#0, %end)")
    assert {i.name: count for i, _, count in parse(short).executed()}["weights"] == 5
    said = TEXT.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}')
    assert {i.name: count for i, _, count in parse(said).executed()}["weights"] == 7


def test_an_instruction_over_several_lines_is_one():
    kernel = parse(TEXT).computations["main"].instructions["kernel"]
    assert kernel.opcode == "custom-call" and kernel.operands == ("x",)
    assert list(parse(TEXT).computations["main"].instructions)[-1] == "last"


def test_sizes_of_shapes():
    assert shape_bytes("bf16[8,128]{1,0:T(8,128)(2,1)}") == 2048
    assert shape_bytes("(f32[4]{0}, s32[], pred[3]{0})") == 16 + 4 + 3
    assert shape_bytes("f8e4m3fn[16]") == 16
    assert shape_elements("(f32[4,2]{0}, s32[])") == 9
    assert array_shapes("(bf16[8,2]{1,0:T(8)}, u32[]{:S(2)})") == ["bf16[8,2]", "u32[]"]
