"""Where does each piece of an array live?

Modules name *logical* axes (`batch`, `embed`, `heads`, ...). One table, `RULES`, maps each name to mesh axes, once for
storing parameters and once for computing. A mesh of one device is a mesh of size one, not a special case.
"""

from jaxllm.sharding.axes import RULES, Axes, spec
from jaxllm.sharding.constrain import einsum, gather, reshard, shard
from jaxllm.sharding.mesh import MeshConfig, MeshError, check_divides, make_mesh
from jaxllm.sharding.placement import batch_sharding, replicated, shardings_for, use_mesh

__all__ = [
    "RULES",
    "Axes",
    "MeshConfig",
    "MeshError",
    "batch_sharding",
    "check_divides",
    "einsum",
    "gather",
    "make_mesh",
    "replicated",
    "reshard",
    "shard",
    "shardings_for",
    "spec",
    "use_mesh",
]
