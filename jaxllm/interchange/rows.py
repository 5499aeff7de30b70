"""Rows of key maps that many families share: linear layers with bias, norms, and the projections to and from heads."""

from jaxllm.interchange.keymap import Tensor


def linear(
    published: str, ours: str, kernel: str = "O I -> I O", bias: str = "O -> O", *, use_bias: bool = True
) -> list[Tensor]:
    """A dense layer, `published`.weight of shape [outputs, inputs] and `published`.bias."""
    rows = [Tensor(f"{published}.weight", f"{ours}/kernel", kernel)]
    return [*rows, Tensor(f"{published}.bias", f"{ours}/bias", bias)] if use_bias else rows


def to_heads(published: str, ours: str, *, use_bias: bool = True) -> list[Tensor]:
    """Queries, keys or values."""
    return linear(published, ours, "(N H) D -> D N H", "(N H) -> N H", use_bias=use_bias)


def from_heads(published: str, ours: str, *, use_bias: bool = True) -> list[Tensor]:
    """Attention's output."""
    return linear(published, ours, "D (N H) -> N H D", use_bias=use_bias)


def norm(published: str, ours: str, *, use_bias: bool = True, absent: tuple[int, ...] = ()) -> list[Tensor]:
    """A norm's scale, which is published as a weight, and its bias."""
    names = [("weight", "scale"), ("bias", "bias")] if use_bias else [("weight", "scale")]
    return [Tensor(f"{published}.{theirs}", f"{ours}/{name}", "D -> D", absent) for theirs, name in names]
