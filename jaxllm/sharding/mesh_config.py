"""How many ways to split over copies of the model, its layers, the batch, parameters, experts, the sequence and tensors."""

from dataclasses import dataclass

from jaxllm.sharding.axes import MESH_AXES


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    replica: int = 1
    """Groups of devices that hold the model once each and exchange nothing but gradients, once a step: one for each slice of
    a multi-slice machine."""
    stage: int = 1
    """Parts into which the layers are split, one after the other; the batch passes through them in parts
    (`model.microbatches`), and outside the layers is split over them."""
    data: int | None = None
    """Copies of the model, each on its share of the batch. By default as many as the devices and the batch size allow."""
    fsdp: int = 1
    """Parts into which parameters, gradients and optimizer state are spread; the batch is split over it, too."""
    expert: int = 1
    """Parts into which the experts are split; the batch is split over it, too."""
    context: int = 1
    """Parts into which each sequence is split."""
    tensor: int = 1
    """Parts into which heads, the feed-forward width and the vocabulary are split."""
    explicit: bool = False
    """Make layouts part of array types (JAX's Explicit mode), so that a sharding slip is an error while tracing."""

    def __post_init__(self) -> None:
        for name in MESH_AXES:
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"mesh.{name} must be at least 1: got {size}")


class MeshError(ValueError):
    """A mesh that this machine, the batch or the model does not allow."""
