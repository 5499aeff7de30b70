"""Rows sent to the devices that hold their experts, and their results sent back; called inside `jax.shard_map`."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

# C rows of a device (a token as often as it has experts), sorted by expert; P devices along the expert axis; S rows of room
# for what one device sends to another; E experts, of which e = E / P are on a device; D width

AXIS = "expert"


class Sent(NamedTuple):
    """Rows as the device of their experts has them."""

    rows: Float[Array, "PS D"]
    """From all devices, those that stand for nothing are 0."""
    expert: Int[Array, " PS"]
    """Which of this device's experts each is for; e for those that stand for nothing."""
    sizes: Int[Array, " e"]
    """Rows for each expert."""
    back: Callable[[Float[Array, "PS D"]], Float[Array, "C D"]]
    """Sends one result a row back to where the rows came from; 0 for those that had no room."""


def exchange(rows: Float[Array, "C D"], sizes: Int[Array, " E"], parts: int, room: int, *, ragged: bool) -> Sent:
    """Sends each row to the device of its expert.

    Args:
      rows: sorted by expert.
      sizes: rows for each expert.
      parts: P; device p has the experts p E/P to (p+1) E/P - 1.
      room: S; with the number of rows, C, none is ever without room. What finds no room is left out.
      ragged: send the rows alone, by `jax.lax.ragged_all_to_all`, which CPUs do not have, instead of S for
        each pair of devices.
    """
    wanted_Pe = sizes.reshape(parts, -1)
    experts = wanted_Pe.shape[1]
    leaving_Pe = _with_room(wanted_Pe, room)
    arrived_Pe = jax.lax.all_to_all(leaving_Pe, AXIS, 0, 0)
    start_P, leaving_P, arrived_P = _starts(wanted_Pe.sum(axis=1)), leaving_Pe.sum(axis=1), arrived_Pe.sum(axis=1)
    if ragged:
        send, back = _ragged(start_P, leaving_P, arrived_P, len(rows), parts * room)
        ends = jnp.cumsum(arrived_Pe.reshape(-1))
        which = jnp.searchsorted(ends, jnp.arange(parts * room), side="right")
        expert = jnp.where(which < ends.size, which % experts, experts)
    else:
        send, back = _padded(start_P, leaving_P, len(rows), room)
        expert = jax.vmap(lambda ends: jnp.searchsorted(ends, jnp.arange(room), side="right"))(jnp.cumsum(arrived_Pe, axis=1))
    return Sent(send(rows), expert.reshape(-1).astype(jnp.int32), arrived_Pe.sum(axis=0), back)


def _starts(counts: Int[Array, " P"]) -> Int[Array, " P"]:
    return jnp.cumsum(counts) - counts


def _with_room(counts_Pe: Int[Array, "P e"], room: int) -> Int[Array, "P e"]:
    """The rows of each expert that find room, first come first served."""
    ends = jnp.minimum(jnp.cumsum(counts_Pe, axis=1), room)
    return jnp.diff(ends, axis=1, prepend=0)


def _padded(start_P: Array, count_P: Array, rows: int, room: int) -> tuple[Callable, Callable]:
    slot = jnp.arange(room)[None, :]
    taken = slot < count_P[:, None]
    source = jnp.minimum(start_P[:, None] + slot, rows - 1)
    number = jnp.arange(rows)
    target = jnp.searchsorted(start_P, number, side="right") - 1
    place = number - start_P[target]
    kept = place < count_P[target]

    def send(rows_CD: Array) -> Array:
        buffer = jnp.where(taken[:, :, None], rows_CD[source], 0)
        return jax.lax.all_to_all(buffer, AXIS, 0, 0).reshape(-1, rows_CD.shape[1])

    def back(results: Array) -> Array:
        buffer = jax.lax.all_to_all(results.reshape(*taken.shape, -1), AXIS, 0, 0)
        return jnp.where(kept[:, None], buffer[target, jnp.minimum(place, room - 1)], 0)

    return send, back


def _ragged(start_P: Array, count_P: Array, arrived_P: Array, rows: int, space: int) -> tuple[Callable, Callable]:
    here = jax.lax.axis_index(AXIS)
    table_PP = jax.lax.all_gather(count_P, AXIS)  # rows that device p sends to device q
    before_PP = jnp.cumsum(table_PP, axis=0) - table_PP  # where they begin there
    start_PP = jax.lax.all_gather(start_P, AXIS)

    def send(rows_CD: Array) -> Array:
        empty = jnp.zeros((space, rows_CD.shape[1]), rows_CD.dtype)
        return jax.lax.ragged_all_to_all(rows_CD, empty, start_P, count_P, before_PP[here], arrived_P, axis_name=AXIS)

    def back(results: Array) -> Array:
        empty = jnp.zeros((rows, results.shape[1]), results.dtype)
        return jax.lax.ragged_all_to_all(
            results, empty, _starts(arrived_P), arrived_P, start_PP[:, here], count_P, axis_name=AXIS
        )

    return send, back
