"""jaxllm: the life of a language model in JAX.

    import jaxllm
    run = jaxllm.load("runs/shakespeare_char")
    print(run.generate("ROMEO:", max_tokens=100)[0])

Rooms, from the bottom up: `hardware`, `sharding`, `models` and `data`, `checkpoint`, `training` and `inference`,
`evaluate`, `recipe`, `cli`. Imports only point down. Importing this package imports none of them.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxllm.recipe import Recipe, fit, load

__version__ = version("jaxllm")
__all__ = ["Recipe", "__version__", "fit", "load"]


def __getattr__(name: str):
    if name in ("Recipe", "fit", "load"):
        return getattr(import_module("jaxllm.recipe"), name)
    raise AttributeError(f"module 'jaxllm' has no attribute {name!r}")
