"""The Transformer over images: patches as tokens (arXiv:2010.11929)."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from jaxllm.models.config import TransformerConfig
from jaxllm.models.head import dense
from jaxllm.models.layers import RESIDUAL, Norm, Project, dropout, parameter
from jaxllm.models.stack import StackInput, init_layers, run_layers
from jaxllm.models.transformer import Output
from jaxllm.sharding import AxisSize, shard

# B batch, P patches, T = P + 1 or 2 tokens, D residual width, X values of a patch


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """An image as a row of patches, read by an encoder."""

    image_size: int = 224
    """Height and width in pixels."""
    patch_size: int = 16
    """Height and width of a patch in pixels."""
    channels: int = 3
    """Colours."""
    num_labels: int | None = None
    """Labels to tell apart. By default hidden states only."""
    label_names: tuple[str, ...] | None = None
    """What the labels are called, in order; for people, the network does not read it. By default they have numbers."""
    distillation_token: bool = False
    """Whether a second token follows the class token, as in DeiT (arXiv:2012.12877)."""
    encoder: TransformerConfig
    """The blocks, with causal=False; its vocabulary and positions are not used."""

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"patch_size must divide image_size: got image_size={self.image_size}, patch_size={self.patch_size}"
            )
        if self.encoder.causal or self.encoder.position != "none" or self.encoder.window is not None:
            raise ValueError("encoder must have causal=False, position='none' and no window: patches have their own positions")
        if self.label_names is not None and len(self.label_names) != self.num_labels:
            raise ValueError(f"label_names must be num_labels names: got {len(self.label_names)} for {self.num_labels}")

    @property
    def num_patches(self) -> int:
        """P: patches of an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def num_tokens(self) -> int:
        """T: tokens that the encoder reads."""
        return self.num_patches + 1 + self.distillation_token

    @property
    def dropout(self) -> float:
        """As the encoder's."""
        return self.encoder.dropout

    @property
    def compute_dtype(self) -> str:
        """Type of activations."""
        return self.encoder.compute_dtype

    def axis_sizes(self, name: str = "model") -> tuple[AxisSize, ...]:
        """Of each dimension that a mesh may split; `name` is this config's in a recipe."""
        return self.encoder.axis_sizes(f"{name}.encoder")


_EMBEDDED = ("batch", None, "embed")
"""Logical axes of patches and marks, before they are one sequence."""


class VisionTransformer(nn.Module):
    """Logits of an image's labels, read from its class token.

    >>> encoder = TransformerConfig(causal=False, position="none")
    >>> model = VisionTransformer(VisionConfig(image_size=32, patch_size=4, num_labels=10, encoder=encoder))
    >>> params = init_params(model, jax.random.key(0))
    >>> model.apply({"params": params}, jnp.zeros((1, 32, 32, 3))).logits.shape
    (1, 10)
    """

    config: VisionConfig

    def example_inputs(self) -> tuple[Array, ...]:
        """The smallest inputs, to make parameters with."""
        size = self.config.image_size
        return (jnp.zeros((1, size, size, self.config.channels)),)

    @nn.nowrap
    def prepare(self, params: Any) -> Any:
        """The parameters as they are; see `Transformer`."""
        return params

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "B height width channels"],
        *,
        head_mask: Float[Array, "L N"] | None = None,
        dropout_key: Array | None = None,
        capture: Collection[str] = (),
    ) -> Output:
        """Logits [B, num_labels] and hidden states, the class token's first.

        Args:
          images: normalized pixels.
          head_mask, dropout_key, capture: as for `Transformer`.
        """
        config, encoder = self.config, self.config.encoder
        expected = (config.image_size, config.image_size, config.channels)
        if images.shape[1:] != expected:
            raise ValueError(f"images must be [batch, height, width, channels] with {expected}: got {images.shape}")
        x = self._embed(images)
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, encoder.num_layers)
        x = dropout(shard(x, *RESIDUAL), encoder.dropout, key, 0, RESIDUAL)
        tokens = jnp.ones(x.shape[:2], jnp.int32)
        all_seen = (tokens[:, :, None] == tokens[:, None, :],)
        given = StackInput(all_seen, head_mask=head_mask, dropout_key=dropout_key)
        if self.is_initializing():
            params, axes = init_layers(encoder, self.make_rng("params"), x, given)
            self.put_variable("params", "layers", params)
            self.put_variable("axes", "layers", axes)
        x, out = run_layers(encoder, self.get_variable("params", "layers"), x, given, capture)
        if encoder.has_final_norm:
            x = Norm(encoder, name="final_norm")(x)
        x, logits = shard(x, "batch", None, "embed"), None
        if config.num_labels is not None:
            logits = dense(encoder, config.num_labels, name="classifier")(x[:, :1])[:, 0].astype(jnp.float32)
        return Output(logits, x, None, {name: getattr(out, name) for name in capture})

    def _embed(self, images: Array) -> Float[Array, "B T D"]:
        config, encoder = self.config, self.config.encoder
        B, size, side = images.shape[0], config.patch_size, config.image_size // config.patch_size
        # One axis at a time, so that the layout of the others stays known on an Explicit mesh.
        patches = images.astype(encoder.compute_dtype).reshape(B, side, size, *images.shape[2:])
        patches = patches.reshape(B, side, size, side, size, config.channels).transpose(0, 1, 3, 2, 4, 5)
        patches = patches.reshape(B, side * side, size, size, config.channels).reshape(B, side * side, -1)
        x = Project(
            encoder,
            equation="BTX,XD->BTD",
            shape=(patches.shape[-1], encoder.embed_dim),
            axes=("patch", "embed"),
            out=_EMBEDDED,
            std=encoder.init_std,
            use_bias=True,
            name="patch",
        )(patches)
        marks = [self._vector("class_token")] + ([self._vector("distillation_token")] if config.distillation_token else [])
        marks = [shard(jnp.broadcast_to(mark, (B, 1, encoder.embed_dim)), *_EMBEDDED) for mark in marks]
        table = self._vector("position", (config.num_tokens,), ("position",))
        return jnp.concatenate([*marks, x], axis=1) + table[None]

    def _vector(self, name: str, sizes: tuple[int, ...] = (), axes: tuple[str, ...] = ()) -> Array:
        encoder = self.config.encoder
        initial, shape = nn.initializers.normal(encoder.init_std), (*sizes, encoder.embed_dim)
        return parameter(self, encoder, name, initial, shape, (*axes, "embed"))
