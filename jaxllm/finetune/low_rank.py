"""A product of two thin matrices beside a projection or an embedding: x · A · B, and what it makes of the kernel.

A has the kernel's dimensions that are multiplied, then the rank; B the rank, then the kernel's other dimensions. Where each row
of the batch has an adapter of its own, these stand before all others.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.core import Tracer
from jaxtyping import Float, Float64

from jaxllm.finetune.targets import beside, computed, letters_of
from jaxllm.models.layers import RESIDUAL, Embed, Project, dropout, take
from jaxllm.sharding import einsum, reshard, spec
from jaxllm.sharding.constrain import current_mesh

# B batch, T time, R rank; the letters of a kernel as its projection names them, or V and D of an embedding

THIN = ("batch", "time", "rank")
LOOKED_UP = ("batch", "residual_time", "rank")
F32 = jnp.dtype(jnp.float32)
Numbers = Float64[np.ndarray, "..."]


def kernel_letters(module: nn.Module) -> tuple[str, str]:
    """Letters of a kernel's dimensions: those that are multiplied, and the others."""
    if isinstance(module, Embed):
        return "V", "D"
    inputs, result = module.equation.split("->")  # type: ignore[attr-defined]
    letters = inputs.split(",")[1]
    return "".join(x for x in letters if x not in result), "".join(x for x in letters if x in result)


def kernel_axes(module: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Logical axes likewise."""
    axes = (module.axis, "embed") if isinstance(module, Embed) else module.axes  # type: ignore[attr-defined]
    count = len(kernel_letters(module)[0])
    return tuple(axes[:count]), tuple(axes[count:])


def singular(matrix: Float[Array, "*L inputs outputs"], rank: int) -> tuple[Any, Any, Any]:
    """U [*L, inputs, R], s [*L, R] and V [*L, R, outputs] of the largest R singular values, the largest first.

    Numbers in the memory of a CPU by SciPy: there XLA hands the matrices to the threads of its pool, and one of these waits for
    the others; of several stacks at once all threads wait, and none computes (jaxlib 0.10, a pool of two threads).
    """
    if isinstance(matrix, Tracer) or any(device.platform != "cpu" for device in matrix.devices()):
        u, s, v = jnp.linalg.svd(matrix, full_matrices=False)
        return u[..., :rank], s[..., :rank], v[..., :rank, :]
    whole = np.asarray(matrix.addressable_data(0), np.float64)
    found = [_largest(each, rank) for each in whole.reshape(-1, *whole.shape[-2:])]
    parts = (np.stack(part).astype(np.float32) for part in zip(*found, strict=True))
    u, s, v = (jnp.asarray(part.reshape(*whole.shape[:-2], *part.shape[1:])) for part in parts)
    return u, s, v


def _largest(matrix: Numbers, rank: int) -> tuple[Numbers, Numbers, Numbers]:
    """U, s and V of one matrix, by as many eigenvectors of its product with itself: a fifth of the time of all of them."""
    if matrix.shape[0] > matrix.shape[1]:
        v, s, u = _largest(matrix.T, rank)
        return u.T, s, v.T
    from scipy.linalg import eigh

    size = len(matrix)
    _, vectors = eigh(matrix @ matrix.T, subset_by_index=(size - rank, size - 1))
    u = vectors[:, ::-1]
    v = u.T @ matrix
    s = np.linalg.norm(v, axis=1)
    return u, s, v / np.where(s > 0, s, 1)[:, None]


def narrow(module: nn.Module, x: Array, a: Float[Array, "..."]) -> Float[Array, "B T R"]:
    """x · A; for an embedding, A's rows of the ids."""
    (contracted, _), (axes, _) = kernel_letters(module), kernel_axes(module)
    dtype = module.config.compute_dtype  # type: ignore[attr-defined]
    if isinstance(module, Embed):
        a = a.astype(dtype)
        return take(a, x, LOOKED_UP) if a.ndim == 2 else jax.vmap(lambda table, ids: table[ids])(a, x)
    a = computed(a, (*axes, "rank"), dtype)
    return einsum(f"BT{contracted},{letters_of(contracted + 'R', a)}->BTR", x, a, out=THIN)


def widen(module: nn.Module, thin: Float[Array, "B T R"], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """(x · A) · B, laid out as what the module gives."""
    (_, produced), (_, axes) = kernel_letters(module), kernel_axes(module)
    b = computed(b, ("rank", *axes), thin.dtype)
    out = RESIDUAL if isinstance(module, Embed) else module.out  # type: ignore[attr-defined]
    return einsum(f"BTR,{letters_of('R' + produced, b)}->BT{produced}", thin, b, out=out)


def low_rank(module: nn.Module, own: Any, x: Array) -> Float[Array, "..."]:
    """scale · x · A · diag(e) · B; without e that is 1."""
    thin = narrow(module, x, own["a"])
    thin = thin * beside(own["scale"].astype(thin.dtype), 0, thin)
    if "e" in own:
        thin = thin * beside(own["e"].astype(thin.dtype), 1, thin)
    return widen(module, thin, own["b"])


def dropped(module: nn.Module, x: Array, rate: float, key: Array | None) -> Array:
    """The input of a projection with values dropped; of an embedding, whose input is ids, none are."""
    if isinstance(module, Embed):
        return x
    assert isinstance(module, Project)
    return dropout(x, rate, key, 0, ["batch", "time", *kernel_axes(module)[0]])


def delta(kernel: Float[Array, "..."], own: Any) -> Float[Array, "..."]:
    """scale · A · diag(e) · B in the shape of the kernel, in float32."""
    scale = own["scale"]
    a, b = flat(own["a"], scale.ndim, of_rows=True), flat(own["b"], scale.ndim, of_rows=False)
    if "e" in own:
        a = a * own["e"][..., None, :]
    return (jnp.matmul(a, b, precision="highest") * scale[..., None, None]).reshape(kernel.shape)


def flat(x: Float[Array, "..."], leading: int, *, of_rows: bool) -> Float[Array, "..."]:
    """A as [*, inputs, R] (`of_rows`), or B as [*, R, outputs], in float32."""
    shape = (-1, x.shape[-1]) if of_rows else (x.shape[leading], -1)
    return x.astype(jnp.float32).reshape(*x.shape[:leading], *shape)


def added(kernel: Float[Array, "..."], own: Any, axes: Sequence[str]) -> Float[Array, "..."]:
    """The kernel of two dimensions with what is added to it, on the mesh that computes: gradients pass, and the result lies as
    the kernel does."""
    a, b = computed(own["a"], (axes[0], "rank"), F32), computed(own["b"], ("rank", axes[1]), F32)
    if "e" in own:
        a = a * own["e"][None, :]
    product = einsum("IR,RO->IO", a, b, out=(axes[0], axes[1])) * own["scale"]
    mesh = current_mesh()
    if mesh is not None:
        product = reshard(product, spec(axes, product.shape, mesh, stored=True))
    return (kernel.astype(jnp.float32) + product).astype(kernel.dtype)


def column_norms(module: nn.Module, kernel: Array, own: Any) -> Float[Array, "..."]:
    """‖W + scale · A · B‖ of each column, in float32, from products of thin matrices: the sum of the two is never there."""
    (contracted, produced), (inputs, outputs) = kernel_letters(module), kernel_axes(module)
    highest: dict[str, Any] = {"precision": "highest"}
    w = computed(kernel, (*inputs, *outputs), F32)
    a, b = computed(own["a"], (*inputs, "rank"), F32), computed(own["b"], ("rank", *outputs), F32)
    a_letters, b_letters = letters_of(contracted + "R", a), letters_of("R" + produced, b)
    rows, head = ("B", ("batch",)) if a.ndim > len(inputs) + 1 else ("", ())
    letters = contracted + produced
    square = einsum(f"{letters},{letters}->{produced}", w, w, out=outputs, **highest)
    met = einsum(f"{letters},{a_letters}->{rows}R{produced}", w, a, out=(*head, "rank", *outputs), **highest)
    gram = einsum(f"{a_letters},{a_letters.replace('R', 'S')}->{rows}SR", a, a, out=(*head, "rank", "rank"), **highest)
    mixed = einsum(f"{rows}SR,{b_letters}->{rows}S{produced}", gram, b, out=(*head, "rank", *outputs), **highest)
    scale = own["scale"].reshape(own["scale"].shape + (1,) * (b.ndim - len(rows)))
    summed = jnp.sum(2 * scale * met * b + scale * scale * mixed * b, axis=len(rows))
    return jnp.sqrt(jnp.maximum(square[None] + summed if rows else square + summed, 0))
