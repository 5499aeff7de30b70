"""The state of a run on disk: saved without stopping the run, restored on any mesh, verified to the last bit.

    from jaxllm.checkpoint import CheckpointConfig, Store

A recipe needs only `CheckpointConfig`, `Best` and `Direction`; Orbax is imported when the first other name is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from jaxllm.checkpoint.config import Best, CheckpointConfig, CheckpointError, Direction, SaveError

if TYPE_CHECKING:
    from jaxllm.checkpoint.store import Restored, Store

__all__ = ["Best", "CheckpointConfig", "CheckpointError", "Direction", "Restored", "SaveError", "Store"]


def __getattr__(name: str):
    if name in ("Restored", "Store"):
        return getattr(import_module("jaxllm.checkpoint.store"), name)
    raise AttributeError(f"module 'jaxllm.checkpoint' has no attribute {name!r}")
