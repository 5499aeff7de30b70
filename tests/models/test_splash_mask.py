"""The quick masks say of every block what JAX's own say, and the kernels made with them are the same programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info as infos

from jaxllm.models.splash_mask import splash_mask
from jaxllm.sharding import MeshConfig, balanced_order, make_mesh, use_mesh

T, BLOCK = 1024, 128
KINDS = {
    "causal": (dict(causal=True, window=None), masks.CausalMask((T, T))),
    "one pair of a block": (dict(causal=True, window=130), masks.LocalMask((T, T), (129, 0), 0)),
    "all but one pair": (dict(causal=True, window=255), masks.LocalMask((T, T), (254, 0), 0)),
    "a whole block": (dict(causal=True, window=256), masks.LocalMask((T, T), (255, 0), 0)),
    "oneself": (dict(causal=True, window=1), masks.LocalMask((T, T), (0, 0), 0)),
    "both sides": (dict(causal=False, window=130), masks.LocalMask((T, T), (129, 129), 0)),
    "both sides, whole": (dict(causal=False, window=256), masks.LocalMask((T, T), (255, 255), 0)),
    "everything": (dict(causal=False, window=None), masks.FullMask((T, T))),
}


def order_of(parts):
    with use_mesh(make_mesh(MeshConfig(data=1, context=parts))):
        return balanced_order(T)


def two(kind, order=None):
    """Ours and JAX's own."""
    options, theirs = KINDS[kind]
    ours = splash_mask(T, T, **options, order=order)
    if hasattr(theirs, "q_sequence"):
        theirs.q_sequence = np.arange(T, dtype=np.int32) if order is None else np.asarray(order.places, np.int32)
    return ours, theirs


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_every_block_is_seen_as_by_the_mask_in_full(kind, parts):
    order = order_of(parts) if parts > 1 and KINDS[kind][0]["causal"] else None
    ours, theirs = two(kind, order)
    for process in (infos.process_mask, infos.process_mask_dkv):
        for shards in {1, 1 if kind == "everything" else parts}:  # JAX splits no queries that see all, see `kernel_takes`
            options = dict(head_shards=2, q_seq_shards=shards)
            (got, _), (want, _) = (
                process(masks.MultiHeadMask((mask,) * 2), (BLOCK, BLOCK), **options) for mask in (ours, theirs)
            )
            assert want.block_mask is not None and want.block_mask.any()
            for name in ("data_next", "block_mask", "q_sequence", "mask_next", "partial_mask_blocks"):
                np.testing.assert_array_equal(getattr(got, name), getattr(want, name))


def test_only_blocks_on_the_diagonal_are_computed():
    mask = splash_mask(T, T, causal=True, window=None, order=None)
    computed, function = [], mask.mask_function  # type: ignore[union-attr]
    mask.mask_function = lambda queries, keys: computed.append(queries.shape) or function(queries, keys)  # type: ignore[union-attr]
    blocks = [slice(start, start + BLOCK) for start in range(0, T, BLOCK)]
    found = [[mask[queries, keys] for keys in blocks] for queries in blocks]
    assert len(computed) == len(blocks) and {block.size for row in found for block in row} == {1, BLOCK * BLOCK}
    assert all(bool(found[i][j].all()) == (j < i) and bool(found[i][j].any()) == (j <= i) for i in range(8) for j in range(8))


def test_masks_of_other_sizes_are_others():
    one = splash_mask(T, T, causal=True, window=None, order=None)
    assert one == splash_mask(T, T, causal=True, window=None, order=None)
    assert len({one, splash_mask(T, T, causal=True, window=None, order=order_of(4))}) == 2


@pytest.mark.parametrize("kind", ["causal", "both sides", "everything"])
def test_the_kernel_is_the_same_program(kind):
    x = jax.ShapeDtypeStruct((2, T, 128), jnp.bfloat16)

    def program(mask):
        infos._process_mask.cache_clear()
        kernel = splash.make_splash_mha(mask=masks.MultiHeadMask((mask,) * 2), head_shards=1, q_seq_shards=1)

        def attend(q, k, v):
            return jnp.sum(kernel(q, k, v).astype(jnp.float32))

        return jax.jit(jax.grad(attend)).trace(x, x, x).lower(lowering_platforms=("tpu",)).as_text()

    ours, theirs = map(program, two(kind))
    assert ours == theirs and "tpu_custom_call" in ours
