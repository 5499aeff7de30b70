"""Matrix products in 8 bits while training, by `qwix`: operands are rounded where they are multiplied, everything else is as
without; master weights stay as they are.

| name | forward, and gradient of the input | gradient of the weights |
|---|---|---|
| `int8` | int8 | in the type of the operands: SwitchBack (arXiv:2304.13013) |
| `fp8` | float8_e4m3, the output's gradient float8_e5m2 | the same (arXiv:2209.05433) |

Each row of an operand is scaled by its own largest magnitude, a row being what is summed over. Multiplied so are attention's
and feed-forward's projections; attention itself, experts, routers and the vocabulary are not.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from jaxllm.models.config import MatmulDType
from jaxllm.sharding import shard
from jaxllm.sharding.constrain import current_mesh, is_explicit

PRODUCT = "quantized_product"
"""Name, for remat policies, of a result: kept in its own type, it takes half of what it was added up in."""
FORWARD = {"int8": jnp.int8, "fp8": jnp.float8_e4m3fn}
BACKWARD = {"int8": jnp.int8, "fp8": jnp.float8_e5m2}


def quantized_einsum(equation: str, x: Array, kernel: Array, *, out: tuple[str | None, ...], dtype: MatmulDType) -> Array:
    """`jnp.einsum` of two operands in 8 bits, in the type of `x`, whose result has the logical axes `out`.

    Raises:
      ValueError: qwix is not installed, or the mesh is explicit, for which it gives no layouts.
    """
    mesh = current_mesh()
    if mesh is not None and is_explicit(mesh):
        raise ValueError(f"model.matmul_dtype={dtype} needs mesh.explicit=False: qwix gives its results no explicit layout")
    require_qwix(dtype)
    return shard(_product(equation, dtype, x, kernel), *out)


def require_qwix(dtype: MatmulDType) -> None:
    """Refuses early what needs qwix where it is not installed."""
    try:
        import qwix  # noqa: F401
    except ImportError:
        raise ValueError(f"model.matmul_dtype={dtype} needs qwix: pip install 'jaxllm[quantize]'") from None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(equation: str, dtype: MatmulDType, x: Array, kernel: Array) -> Array:
    return checkpoint_name(_rounded(equation, (x, FORWARD[dtype]), (kernel, FORWARD[dtype])), PRODUCT)


def _forward(equation: str, dtype: MatmulDType, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(equation, dtype, x, kernel), (x, kernel)


def _backward(equation: str, dtype: MatmulDType, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = kept
    inputs, out = equation.split("->")
    of_x, of_kernel = inputs.split(",")
    dx = _rounded(f"{out},{of_kernel}->{of_x}", (gradient, BACKWARD[dtype]), (kernel, FORWARD[dtype]))
    by_x = f"{of_x},{out}->{of_kernel}"
    if dtype == "int8":
        return dx, jnp.einsum(by_x, x, gradient)
    return dx, _rounded(by_x, (x, FORWARD[dtype]), (gradient, BACKWARD[dtype]))


_product.defvjp(_forward, _backward)


def _rounded(equation: str, *operands: tuple[Array, Any]) -> Array:
    """The product of operands, each rounded to its type, in the type of the first."""
    import qwix

    inputs, out = equation.split("->")
    rounded = [
        qwix.quantize(array, dtype, channelwise_axes=[axis for axis, letter in enumerate(letters) if letter in out])
        for letters, (array, dtype) in zip(inputs.split(","), operands, strict=True)
    ]
    return qwix.einsum(equation, *rounded).astype(operands[0][0].dtype)
