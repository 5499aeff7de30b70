"""What the model was before it learned preferences: a method's parameters left out, or numbers computed once and kept."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float, UInt32

from jaxllm.data.example_rows import ExampleRows
from jaxllm.data.example_table import ExampleTable
from jaxllm.data.whole import write_whole
from jaxllm.finetune.adapted import unadapted
from jaxllm.hardware import cache_dir
from jaxllm.models import Model, abstract_params, partition, paths

REFERENCE = "reference"
"""The array of a batch that holds what the reference gives the two answers of each pair, [B, 2]."""


def what_changes(model: Any) -> str | None:
    """Why the model without its method is not what it was at first; None where it is: nothing but the method's own parameters
    learns."""
    plain, method = unadapted(model), getattr(model, "method", None)
    if method is None:
        return "no method adds parameters that could be left out"
    own = [path for path in paths(abstract_params(model)[0]) if method.leaf is not None and f"/{method.leaf}/" in f"/{path}"]
    others = [path for path in paths(abstract_params(plain)[0]) if method.learns(path)]
    output = [path for path in own if path.startswith("unembed/")]  # worked into the output matrix before the loss sees it
    return f"{(others or output)[0]} changes" if others or output else None


def model_without(model: Any) -> Model:
    """The model without its method, where that is what it was at first.

    Raises:
      ValueError: it is not, so the reference must be computed before training.
    """
    if (reason := what_changes(model)) is None:
        return unadapted(model)
    raise ValueError(
        f"preferences are learned against the model as it was, which cannot be had by leaving a method out: {reason}; give the "
        "rows the reference's log-probabilities, computed once (PreferenceTuning.referenced), or use objective.kind='orpo'"
    )


def has_reference(rows: ExampleRows, name: str) -> bool:
    """Whether this machine has kept what the reference gives these examples."""
    return _folder(rows, name).is_dir()


def _folder(rows: ExampleRows, name: str) -> Path:
    key = hashlib.sha256(f"{REFERENCE} {rows.table.fingerprint} {name}".encode()).hexdigest()[:24]
    return cache_dir() / "examples" / key


def with_reference(rows: ExampleRows, name: str, compute: Callable[[], Float[np.ndarray, "items 2"]]) -> ExampleRows:
    """The same examples, each with what the reference gives its two answers.

    Args:
      name: the same exactly when `compute` gives the same; then it is called once, and its numbers are kept on disk.
    """
    folder, given = _folder(rows, name), rows.table.folder
    if not folder.is_dir():
        values = compute().astype(np.float32)

        def write(work: Any) -> None:
            for path in given.glob("*.npy"):
                os.link(path, work / path.name)
            np.save(work / f"{REFERENCE}.npy", values)
            meta = json.loads((given / "meta.json").read_text("utf-8"))
            meta["by_item"] = [*meta["by_item"], REFERENCE]
            meta["fingerprint"] = hashlib.sha256(meta["fingerprint"].encode() + values.tobytes()).hexdigest()[:24]
            (work / "meta.json").write_text(json.dumps(meta, indent=1), "utf-8")

        write_whole(folder, write)
    return dataclasses.replace(rows, table=ExampleTable(folder))


def params_fingerprint(model: Model, params: Any) -> str:
    """Of the model's numbers, wherever they are, those of a method left out: the same after a restart, and on any mesh."""
    own = set(paths(abstract_params(model)[0]))
    params, _ = partition(params, lambda path: path in own)

    def of(leaf: Array) -> UInt32[Array, ""]:
        bits = jax.lax.bitcast_convert_type(leaf.astype(jnp.float32), jnp.uint32)
        place = sum(
            jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * jnp.uint32(2654435761 + 2 * axis)
            for axis in range(bits.ndim)
        )
        return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)

    placed = getattr(jax.tree.leaves(params)[0], "sharding", None)
    everywhere = NamedSharding(placed.mesh, PartitionSpec()) if isinstance(placed, NamedSharding) else None
    sums = jax.device_get(jax.jit(lambda tree: jax.tree.map(of, tree), out_shardings=everywhere)(params))
    named = {jax.tree_util.keystr(path): int(value) for path, value in jax.tree_util.tree_leaves_with_path(sums)}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
