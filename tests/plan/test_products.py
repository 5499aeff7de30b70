"""The form of a product, and its time on this machine."""

import pytest

from jaxllm.plan import products
from jaxllm.plan.hlo import parse
from jaxllm.plan.products import MOST_ELEMENTS, MOST_FLOPS, Product, dot_products, in_memory, product_seconds
from tests.plan.test_traffic import TEXT

SQUARE = Product(left=(512, 512), right=(512, 512), summed=((1, 0),), batch=(), dtype="float32", result="float32")


def test_a_product_is_what_it_is_in_memory():
    """Whose axes are written in another order than they lie in."""
    program = parse("""HloModule product

ENTRY %main (a: bf16[6,64,32], b: bf16[6,16,64]) -> f32[6,32,16] {
  %a = bf16[6,64,32]{1,2,0} parameter(0)
  %b = bf16[6,16,64]{2,1,0} parameter(1)
  ROOT %y = f32[6,32,16]{2,1,0} dot(%a, %b), lhs_batch_dims={0}, lhs_contracting_dims={1}, rhs_batch_dims={0}, rhs_contracting_dims={2}
}
""")  # noqa: E501
    main = program.computations["main"]
    (found,) = dot_products(program, main.instructions["y"], main)
    assert (found.left, found.right) == ((6, 32, 64), (6, 16, 64))
    assert (found.summed, found.batch) == (((2, 2),), ((0, 0),))
    assert (found.dtype, found.result) == ("bfloat16", "float32")
    assert found.flops == 2 * 6 * 64 * 32 * 16 and found.elements == 6 * (64 * 32 + 64 * 16 + 32 * 16)


def test_a_product_in_a_fusion_is_found_and_other_operations_have_none():
    program = parse(TEXT)
    main = program.computations["main"]
    assert [found.flops for found in dot_products(program, main.instructions["y"], main)] == [2 * 8 * 16 * 32]
    assert dot_products(program, main.instructions["x"], main) == []


def test_sizes_are_read_in_the_order_of_memory():
    assert in_memory("f32[8,16,4]{0,2,1}") == ("f32", (16, 4, 8), {1: 0, 2: 1, 0: 2})
    assert in_memory("f32[]") == ("f32", (), {})


@pytest.mark.parametrize(
    "large",
    [
        Product(left=(2**16, 4096), right=(4096, 4096), summed=((1, 0),), batch=(), dtype="float32", result="float32"),
        Product(left=(2**20, 256), right=(2**20, 512), summed=((0, 0),), batch=(), dtype="float32", result="float32"),
        Product(
            left=(2**10, 512, 64), right=(2**10, 512, 64), summed=((2, 2),), batch=((0, 0),), dtype="float32", result="float32"
        ),
    ],
)
def test_of_a_large_product_a_part_is_timed(large, monkeypatch):
    shapes = []
    monkeypatch.setattr(products, "loop_seconds", lambda multiply, given, dtype: shapes.append(given) or 1.0)
    product_seconds.cache_clear()
    seconds = product_seconds(large)
    product_seconds.cache_clear()
    (left, right), *others = shapes
    part = Product(left=left, right=right, summed=large.summed, batch=large.batch, dtype="float32", result="float32")
    assert not others and part.flops <= MOST_FLOPS and part.elements <= MOST_ELEMENTS
    assert seconds == pytest.approx(large.flops / part.flops)
    assert all(left[a] == right[b] for a, b in part.summed + part.batch)


def test_a_product_is_computed_in_every_turn_that_is_timed():
    """Not once before the loop: eight times the rows take longer, and no core here does 10 TFLOP/s."""
    rows = Product(left=(4096, 512), right=(512, 512), summed=((1, 0),), batch=(), dtype="float32", result="float32")
    assert product_seconds(rows) > 2 * product_seconds(SQUARE) > 2 * SQUARE.flops / 1e13
