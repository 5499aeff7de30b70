"""Who may look at whom, as splash attention wants to know it, told quickly.

The kernel asks before it is compiled which blocks of queries and keys are seen in whole, in part or not at all. JAX's own masks
compute every pair of every block for that: minutes, for 131,072 tokens. Here a block that is seen in whole or not at all is
known from its first and last places, and stands for one pair; only the others are computed. The programs are the same.
"""

from typing import Any

import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from jaxllm.sharding import Order


def splash_mask(queries: int, keys: int, *, causal: bool, window: int | None, order: Order | None) -> masks.Mask:
    """The mask of one head: of all that came before, of the last `window` places, of as many on both sides, or of everything.

    Args:
      order: of the queries, where it is not that of their sequence.
    """
    shape = (queries, keys)
    if window is not None:
        mask = _Window(shape, (window - 1, 0 if causal else window - 1), 0)
    else:
        mask = _Causal(shape) if causal else _Everything(shape)
    if order is not None:
        assert isinstance(mask, (_Causal, _Window))
        mask.q_sequence = np.asarray(order.places, np.int32)
    return mask


class _Causal(masks.CausalMask):
    def __getitem__(self, index: Any) -> np.ndarray:
        known = _seen(self, index, None, 0)
        return super().__getitem__(index) if known is None else known


class _Window(masks.LocalMask):
    def __getitem__(self, index: Any) -> np.ndarray:
        known = _seen(self, index, *self.window_size)
        return super().__getitem__(index) if known is None else known


class _Everything(masks.FullMask):
    def __getitem__(self, index: Any) -> np.ndarray:
        return YES


YES, NO = np.ones((1, 1), np.bool_), np.zeros((1, 1), np.bool_)


def _seen(mask: Any, index: tuple[slice, slice], left: int | None, right: int | None) -> np.ndarray | None:
    """Whether queries look at keys between `left` places before and `right` after them; None where some do and some do not.

    Args:
      index: of a block.
    """
    queries, first_key, last_key = mask.q_sequence[index[0]], index[1].start, index[1].stop - 1
    first, last = int(queries.min()), int(queries.max())
    all_seen = (left is None or last - left <= first_key) and (right is None or last_key <= first + right)
    none_seen = (left is not None and last_key < first - left) or (right is not None and first_key > last + right)
    return YES if all_seen else NO if none_seen else None
