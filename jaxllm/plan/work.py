"""What one device program has to do: a train step, reading prompts into a cache, or writing one token of each row."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from jaxllm.data import TaskDataConfig
from jaxllm.inference.decode import PaddedPrompts, read_prompts
from jaxllm.inference.writer import DecodeParams, abstract_decode_params, unembed, write_tokens
from jaxllm.models import Cache, Transformer, init_cache, make_model, partition, train_flops_per_token
from jaxllm.plan.memory import local_bytes
from jaxllm.recipe.device_config import inference_config
from jaxllm.recipe.program import Program
from jaxllm.sharding import batch_sharding, spec, use_mesh

Phase = Literal["train", "prefill", "decode"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """A program that can be lowered and compiled, and what is known of it before."""

    phase: Phase
    lower: Callable[[], jax.stages.Lowered]
    bytes: dict[str, int]
    """Of one device: parameters, optimizer, gradients, cache, batch."""
    tokens: int
    """Tokens, or images, of a call."""
    flops: float
    """Of the model in a call, on all devices, counted analytically."""


def work_of(program: Program, phase: Phase, length: int | None) -> Work:
    """The work of a phase.

    Args:
      length: tokens of a prompt, or slots of the cache; by default the recipe's data.seq_len.

    Raises:
      ValueError: a model that does not write, a length that its positions do not reach.
    """
    if phase == "train":
        return train_work(program)
    tokens: int = getattr(program.recipe.data, "seq_len", 1) if length is None else length
    model = _writer(program, phase, tokens)
    return (_prefill_work if phase == "prefill" else _decode_work)(program, model, tokens)


def train_work(program: Program) -> Work:
    return Work(
        phase="train",
        lower=program.lower_step,
        bytes={
            "parameters": local_bytes(program.abstract.whole),
            "optimizer": local_bytes(program.abstract.opt_state),
            "gradients": local_bytes(program.abstract.params),
            "cache": 0,
            "batch": local_bytes(program.abstract_batch),
        },
        tokens=_tokens(program),
        flops=train_flops_per_token(program.recipe.model_config, getattr(program.recipe.data, "seq_len", 1)) * _tokens(program),
    )


def _tokens(program: Program) -> int:
    """Of a batch; of a task, whose examples are counted elsewhere, those of rows as long as they may be."""
    if not isinstance(program.recipe.data, TaskDataConfig):
        return program.tokens_per_step
    fields = program.abstract_batch.items()
    return sum(math.prod(leaf.shape) for name, leaf in fields if name.endswith("tokens"))


def _served(program: Program) -> Any:
    """The parameters of the model itself, into which those of a method are merged."""
    own = program.recipe.method.leaf
    return partition(program.abstract.whole, lambda path: own is None or own not in path.split("/"))[0]


def _writer(program: Program, phase: Phase, length: int) -> Transformer:
    """The recipe's model as generation has it: without what is only for training."""
    model = make_model(inference_config(program.recipe.model_config, None, program.mesh))
    if not isinstance(model, Transformer) or not model.config.causal:
        kind = type(program.recipe.model_config).__name__
        raise ValueError(f"phase {phase} is planned for decoders: got a {kind} that does not write; plan its training instead")
    if not 1 <= length <= model.config.context_len:
        raise ValueError(f"length must be in 1..model.context_len={model.config.context_len}: got {length}")
    return model


def _prefill_work(program: Program, model: Transformer, length: int) -> Work:
    rows = program.recipe.batch_size
    params, table = abstract_decode_params(model, _served(program)), _rows(program, (rows, length))
    longest: Any = jax.ShapeDtypeStruct((), jnp.int32)
    prompts = PaddedPrompts(table, table, table, longest)
    kept = _abstract_cache(program, model, rows, length)

    def prefill(params: DecodeParams, prompts: PaddedPrompts) -> tuple[jax.Array, Cache]:
        hidden, cache = read_prompts(model, length, params, prompts, None)
        return _likeliest(model, params.prompts, hidden), cache

    last_only = 2.0 * model.config.embed_dim * model.config.vocabulary * rows * (length - 1)
    return Work(
        phase="prefill",
        lower=lambda: _lower(program, prefill, (params, prompts), kept),
        bytes=_serving_bytes(params.prompts, None, prompts[:3]),
        tokens=rows * length,
        flops=train_flops_per_token(model.config, length) / 3 * rows * length - last_only,
    )


def _decode_work(program: Program, model: Transformer, length: int) -> Work:
    rows = program.recipe.batch_size
    params, column = abstract_decode_params(model, _served(program)), _rows(program, (rows,))
    cache = _abstract_cache(program, model, rows, length)

    def decode(params: DecodeParams, tokens: jax.Array, positions: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        out = write_tokens(model, params.tokens, tokens[:, None], cache, positions=positions[:, None])
        assert out.cache is not None
        return _likeliest(model, params.tokens, out.hidden), out.cache

    return Work(
        phase="decode",
        lower=lambda: _lower(program, decode, (params, column, column, cache), cache, donate=(3,)),
        bytes=_serving_bytes(params.tokens, cache, (column, column)),
        tokens=rows,
        flops=train_flops_per_token(model.config, length) / 3 * rows,
    )


def _likeliest(model: Transformer, params: Any, hidden: jax.Array) -> jax.Array:
    """The next token of each row."""
    return jnp.argmax(unembed(model, params, hidden)[:, 0], axis=-1)


def _rows(program: Program, shape: tuple[int, ...]) -> Any:
    """A whole number for each row, or for each of its tokens."""
    return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=batch_sharding(program.mesh))


def _abstract_cache(program: Program, model: Transformer, rows: int, length: int) -> Cache:
    """One array a layer, as generation keeps it."""
    shapes, mesh = jax.eval_shape(lambda: init_cache(model.config, rows, length, stacked=False)), program.mesh
    names = {4: ("batch", "kv_heads", "cache", "head_dim"), 2: ("batch", "cache"), 0: ()}

    def laid_out(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        layout = NamedSharding(mesh, spec(names[len(leaf.shape)], leaf.shape, mesh))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout)

    return jax.tree.map(laid_out, shapes)


def _lower(
    program: Program, function: Callable, given: tuple, cache: Cache, donate: tuple[int, ...] = ()
) -> jax.stages.Lowered:
    """The function on these arguments, handing out tokens and a cache laid out as `cache`."""
    layouts = (batch_sharding(program.mesh), jax.tree.map(lambda leaf: leaf.sharding, cache))
    with use_mesh(program.mesh):
        return jax.jit(function, out_shardings=layouts, donate_argnums=donate).lower(*given)


def _serving_bytes(params: Any, cache: Any, tokens: Any) -> dict[str, int]:
    return {
        "parameters": local_bytes(params),
        "optimizer": 0,
        "gradients": 0,
        "cache": 0 if cache is None else local_bytes(cache),
        "batch": local_bytes(tokens),
    }
