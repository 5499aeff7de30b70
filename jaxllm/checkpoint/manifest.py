"""What a checkpoint says about itself: its step, data position, metrics and, for every array, type, shape and digest.

A state is stored as a flat dictionary from the path of a leaf (`params/layers/attention/query`) to its array, so that
a checkpoint does not depend on the Python classes that made it. The manifest is one JSON file in the same atomic
commit, with a checksum of its own: with it, damage (bits differ from what was saved) and misfit (another model or
optimizer is asked for) can be told apart.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxllm.checkpoint.config import CheckpointError
from jaxllm.checkpoint.digest import digest
from jaxllm.checkpoint.in_bucket import InBucket
from jaxllm.checkpoint.on_disk import OnDisk

FILE_NAME = "manifest.json"
FORMAT = 1


class Damaged(Exception):
    """What is on disk is not what was saved."""


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One stored array."""

    dtype: str
    """NumPy's name of its type."""
    shape: list[int]
    """Its sizes."""
    digest: int
    """`jaxllm.checkpoint.digest` of its bits."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The description of one checkpoint."""

    step: int
    """Steps taken."""
    meta: dict[str, Any]
    """Whatever the training loop needs besides arrays: data position, fingerprints."""
    metrics: dict[str, float]
    """Figures that decide which checkpoints are best; may be empty."""
    leaves: dict[str, Leaf]
    """The arrays by their paths."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object with a checksum of the rest of it."""
        body = {"format": FORMAT, **asdict(self)}
        return {"sha256": _checksum(body), **body}

    @staticmethod
    def read(place: OnDisk | InBucket, step: int) -> "Manifest":
        """The manifest of a step; raises Damaged unless it is exactly what was written, OSError where it may not be read."""
        name = f"manifest/{FILE_NAME}"
        path = f"{place.name(step)}/{name}"
        try:
            body = json.loads(place.read(step, name))
            checksum = body.pop("sha256")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise Damaged(f"{path} is missing") from None
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise Damaged(f"{path} is not readable: {error}") from error
        if checksum != _checksum(body):
            raise Damaged(f"the checksum of {path} does not match its content")
        if body.pop("format") != FORMAT:
            raise CheckpointError(f"{path} was written by another version of jaxllm: load it with that version")
        body["leaves"] = {name: Leaf(**leaf) for name, leaf in body["leaves"].items()}
        return Manifest(**body)

    def check_fits(self, wanted: Mapping[str, jax.ShapeDtypeStruct], prefix: str, checkpoint: str) -> None:
        """Raise CheckpointError unless the leaves under `prefix` have the names, types and shapes of `wanted`."""
        problems = []
        stored = {name: leaf for name, leaf in self.leaves.items() if name.startswith(prefix)}
        for name in sorted(wanted.keys() | stored.keys()):
            expected = _kind(wanted[name].dtype.name, wanted[name].shape) if name in wanted else "no such array"
            found = _kind(stored[name].dtype, stored[name].shape) if name in stored else "no such array"
            if expected != found:
                problems.append(f"{name}: expected {expected}, found {found}")
        if problems:
            more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
            raise CheckpointError(
                f"checkpoint {checkpoint} does not fit this model and optimizer: {'; '.join(problems[:4])}{more}. "
                "Use the recipe that wrote it, or another run folder"
            )


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their paths, `params/layers/attention/query`."""
    paths = jax.tree.leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}
    if len(named) != len(paths):
        raise CheckpointError("two leaves of the state have the same path: leave '/' out of the keys")
    return named


def describe(step: int, arrays: Mapping[str, Any], meta: dict[str, Any], metrics: Mapping[str, float]) -> Manifest:
    """The manifest of a state; raises CheckpointError for leaves that are no arrays of numbers, and for `meta` that is
    no JSON."""
    for name, leaf in arrays.items():
        if not isinstance(leaf, jax.Array):
            raise CheckpointError(f"{name} must be a jax.Array to be saved: got {type(leaf).__name__}; use jnp.asarray")
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise CheckpointError(f"{name} is a random key: save jax.random.key_data of it")
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating) or leaf.size == 0:
            raise CheckpointError(f"{name} cannot be saved, leave it out: it is {_kind(leaf.dtype.name, leaf.shape)}")
    try:
        meta = json.loads(json.dumps(meta))
    except TypeError as error:
        raise CheckpointError(f"meta must hold JSON values: {error}") from error
    digests = jax.device_get([digest(leaf) for leaf in arrays.values()])
    leaves = {
        name: Leaf(dtype=leaf.dtype.name, shape=list(leaf.shape), digest=int(found))
        for (name, leaf), found in zip(arrays.items(), digests, strict=True)
    }
    scores = {name: float(value) for name, value in metrics.items()}
    return Manifest(step=step, meta=meta, metrics=scores, leaves=leaves)


def _kind(dtype: str, shape: Sequence[int]) -> str:
    return f"{dtype}[{', '.join(map(str, shape))}]"


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
