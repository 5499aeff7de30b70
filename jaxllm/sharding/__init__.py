"""Where does each piece of an array live?

Modules name *logical* axes (`batch`, `embed`, `heads`, ...). One table, `RULES`, maps each name to mesh axes, once for
storing parameters and once for computing. A mesh of one device is a mesh of size one, not a special case.
"""

from jaxllm.sharding.axes import RULES, Axes, axis_names, spec
from jaxllm.sharding.balance import Order, balanced_order, in_order
from jaxllm.sharding.constrain import einsum, gather, gather_activation, gather_parts, map_shards, reshard, scatter_sum, shard
from jaxllm.sharding.divide import AxisSize, check_batch, check_divides, left_whole, use_all
from jaxllm.sharding.mesh import make_mesh, mesh_sizes
from jaxllm.sharding.mesh_config import MeshConfig, MeshError
from jaxllm.sharding.placement import batch_parts, batch_sharding, placed_shapes, replicated, shardings_for, use_mesh

__all__ = [
    "RULES",
    "Axes",
    "AxisSize",
    "MeshConfig",
    "MeshError",
    "Order",
    "axis_names",
    "balanced_order",
    "batch_parts",
    "batch_sharding",
    "check_batch",
    "check_divides",
    "einsum",
    "gather",
    "gather_activation",
    "gather_parts",
    "in_order",
    "left_whole",
    "make_mesh",
    "map_shards",
    "mesh_sizes",
    "placed_shapes",
    "replicated",
    "reshard",
    "scatter_sum",
    "shard",
    "shardings_for",
    "spec",
    "use_all",
    "use_mesh",
]
