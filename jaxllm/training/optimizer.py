"""Optimizers by name, learning-rate schedules, and the average of parameters. All are Optax's; this file chooses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from optax import contrib

from jaxllm.models import overlay, path_of
from jaxllm.sharding import einsum
from jaxllm.training.depth import scale_by_depth
from jaxllm.training.rounded import rounded
from jaxllm.training.state import TrainState

F32 = jnp.dtype(jnp.float32)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    kind: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """Shape after the warm-up: half a cosine; a line; flat; or warm-up, stable, decay (flat, then a half cosine down)."""
    warmup_steps: int = 0
    """Steps over which the rate rises in a line from 0."""
    decay_steps: int | None = None
    """Step at which the final rate is reached. By default the run's last step."""
    cooldown_steps: int | None = None
    """For wsd: steps of the final decay. By default a fifth of decay_steps."""
    final_fraction: float = 0.1
    """Final rate as a fraction of the peak."""

    def __post_init__(self) -> None:
        for field in ("warmup_steps", "decay_steps", "cooldown_steps"):
            value = getattr(self, field)
            if value is not None and value < 0:
                raise ValueError(f"optimizer.schedule.{field} must be at least 0: got {value}")
        if not 0 <= self.final_fraction <= 1:
            raise ValueError(f"optimizer.schedule.final_fraction must be in [0, 1]: got {self.final_fraction}")


LEARNING_RATE = 1e-3
"""Where none is given, and no method has one."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    name: Literal["adamw", "adafactor", "lion", "muon", "sgd"] = "adamw"
    """Update rule. muon orthogonalizes the updates of matrices in the blocks; the rest gets adamw."""
    learning_rate: float | None = None
    """Peak learning rate. By default that of the fine-tuning method, chosen with adamw; 0.001 for a model from new numbers."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How the learning rate changes over the run."""
    weight_decay: float = 0.1
    """Weight decay on matrices and embeddings; norms and biases are left alone. Decoupled, but for sgd part of the gradient."""
    b1: float = 0.9
    """Decay of the first moment; the momentum of sgd and muon is `momentum`."""
    b2: float = 0.95
    """Decay of the second moment."""
    epsilon: float = 1e-8
    """Added to the root of the second moment."""
    momentum: float = 0.95
    """Momentum of sgd and muon."""
    nesterov: bool = False
    """Nesterov momentum, for sgd and muon."""
    clip_norm: float | None = 1.0
    """Scale the gradient down to this global norm. None does not."""
    state_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type in which moments are kept between steps; bfloat16 halves them, and is rounded up or down at random. Parameters, and
    their average, keep their own type."""
    state_memory: Literal["device", "host"] = "device"
    """Where moments wait between steps; in the host's memory they take none of the device's but while the optimizer computes,
    and travel there and back in each step."""
    ema: float | None = None
    """Decay of an average of the parameters, which evaluation then uses. By default none is kept."""
    layer_decay: float | None = None
    """Learning rate of each layer as a fraction of that of the layer above it; the head has all of it, the embedding, below the
    first layer, the least. By default all learn at the same rate."""
    unfreeze_every: int | None = None
    """Steps after which one more layer learns, from the top: at first the head alone, at last the embedding (gradual
    unfreezing, arXiv:1801.06146). By default all learn from the first step."""

    def __post_init__(self) -> None:
        if self.learning_rate is not None and self.learning_rate <= 0:
            raise ValueError(f"optimizer.learning_rate must be positive: got {self.learning_rate}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"optimizer.clip_norm must be positive: got {self.clip_norm}; None switches it off")
        for field in ("b1", "b2", "momentum"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"optimizer.{field} must be in [0, 1): got {getattr(self, field)}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"optimizer.ema must be in (0, 1): got {self.ema}; leave it out for no average")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"optimizer.layer_decay must be in (0, 1]: got {self.layer_decay}; leave it out for one rate")
        if self.unfreeze_every is not None and self.unfreeze_every < 1:
            raise ValueError(f"optimizer.unfreeze_every must be at least 1: got {self.unfreeze_every}; leave it out for none")


def make_schedule(config: ScheduleConfig, peak: float, steps: int) -> optax.Schedule:
    """Learning rate of step 0, 1, ... of a run of `steps` steps; as the schedules of transformers' `optimization`."""
    end, warmup = config.decay_steps or steps, config.warmup_steps
    if warmup > end:
        raise ValueError(
            f"optimizer.schedule.warmup_steps must not exceed decay_steps: got {warmup} and {end}; "
            "shorten the warm-up or train for longer"
        )
    after = max(1, end - warmup)
    if config.kind == "cosine":
        main = optax.cosine_decay_schedule(peak, after, alpha=config.final_fraction)
    elif config.kind == "linear":
        main = optax.linear_schedule(peak, peak * config.final_fraction, after)
    elif config.kind == "constant":
        main = optax.constant_schedule(peak)
    else:
        cooldown = max(1, min(after, end // 5 if config.cooldown_steps is None else config.cooldown_steps))
        down = optax.cosine_decay_schedule(peak, cooldown, alpha=config.final_fraction)
        main = optax.join_schedules([optax.constant_schedule(peak), down], [after - cooldown])
    if not warmup:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup])


Wrap = Callable[[optax.GradientTransformation], optax.GradientTransformation]


def make_optimizer(
    config: OptimizerConfig, steps: int, wrap: Wrap = lambda rule: rule
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The gradient transformation of a run of `steps` steps, and its learning-rate schedule.

    Args:
      wrap: what a fine-tuning method makes of the update rule; the average is of what comes out of that.
    """
    rate = LEARNING_RATE if config.learning_rate is None else config.learning_rate
    schedule = make_schedule(config.schedule, rate, steps)
    parts: list[optax.GradientTransformation] = []
    if config.clip_norm is not None:
        parts.append(clip_by_global_norm(config.clip_norm))
    rule = _update_rule(config, schedule)
    parts.append(rounded(rule) if config.state_dtype == "bfloat16" else rule)
    if config.layer_decay is not None or config.unfreeze_every is not None:
        parts.append(scale_by_depth(config.layer_decay or 1.0, config.unfreeze_every))
    whole = optax.chain(*parts)
    if (around := wrap(whole)) is not whole:
        parts, whole = [around], around
    return (whole if config.ema is None else optax.chain(*parts, average_params(config.ema))), schedule


def _update_rule(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    decay = config.weight_decay
    if config.name == "adamw":
        return optax.adamw(schedule, b1=config.b1, b2=config.b2, eps=config.epsilon, weight_decay=decay, mask=decay_mask)
    if config.name == "lion":
        return optax.lion(schedule, b1=config.b1, b2=config.b2, weight_decay=decay, mask=decay_mask)
    if config.name == "adafactor":  # optax.adafactor would decay weights by `decay` itself, not by learning rate · decay
        return optax.chain(
            optax.scale_by_factored_rms(),
            _clip_layer_rms(1.0),
            optax.add_decayed_weights(decay, mask=decay_mask),
            optax.scale_by_learning_rate(schedule),
        )
    if config.name == "muon":  # at rate 1, so that decay is added once, masked, for matrices and the rest
        rule = contrib.muon(
            1.0,
            beta=config.momentum,
            nesterov=config.nesterov,
            adam_b1=config.b1,
            adam_b2=config.b2,
            eps=config.epsilon,
            muon_weight_dimension_numbers=_muon_dimensions,
        )
        decayed = optax.add_decayed_weights(-decay, mask=decay_mask)
        return optax.chain(rule, decayed, optax.scale_by_schedule(schedule))
    return optax.chain(
        optax.add_decayed_weights(decay, mask=decay_mask),
        optax.sgd(schedule, momentum=config.momentum or None, nesterov=config.nesterov),
    )


def _clip_layer_rms(limit: float) -> optax.GradientTransformation:
    """Adafactor's clipping of each update to a root mean square of `limit`, layer by layer where layers are stacked."""

    def clip(path: Any, update: Array) -> Array:
        axes = tuple(range(1 if "layers" in path_of(path).split("/") else 0, update.ndim))
        return update / jnp.maximum(1.0, jnp.sqrt(jnp.mean(jnp.square(update), axis=axes, keepdims=True)) / limit)

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(clip, updates))


def global_norm(tree: Any) -> Array:
    """√ Σ x² over all leaves. As dot products, which a CPU computes faster than Optax's sums of squares."""
    letters = "abcdefgh"
    dots = [
        einsum(f"{letters[: x.ndim]},{letters[: x.ndim]}->", x, x, out=(), dtype=F32, precision="highest")
        for x in jax.tree.leaves(tree)
    ]
    return jnp.sqrt(sum(dots))


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Optax's transformation of that name, by the `global_norm` that the step reports anyway."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        norm = global_norm(updates)
        factor = jnp.where(norm < limit, 1.0, limit / norm)
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)  # type: ignore[arg-type]


def _leaf_name(path: Any) -> str:
    return str(getattr(path[-1], "key", path[-1]))


MATRICES = ("kernel", "table", "a", "b")
"""Names of parameters that decay: matrices, embeddings, and the two matrices of an adapter."""


def decay_mask(params: Any) -> Any:
    """True for matrices and embeddings, False for norms and biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _leaf_name(path) in MATRICES, params)


def scale_by_path(multiplier: Callable[[str], float]) -> optax.GradientTransformation:
    """Learning-rate multipliers by the path of a parameter, behind an update rule."""

    def scale(path: Any, update: Array) -> Array:
        factor = multiplier(path_of(path))
        return update if factor == 1 else update * jnp.asarray(factor, update.dtype)

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates))


def _muon_dimensions(params: Any) -> Any:
    """Which dimensions of a block's kernel are its rows and columns; None for what is not such a matrix."""

    def dimensions(path: Any, leaf: Any) -> contrib.MuonDimensionNumbers | None:
        names = path_of(path).split("/")
        if "layers" not in names or names[-1] != "kernel":
            return None
        rows = (1, 2) if names[-2] == "output" else (1,)  # attention output: heads x width -> embed
        columns = tuple(axis for axis in range(1, leaf.ndim) if axis not in rows)
        return contrib.MuonDimensionNumbers(reduction_axis=rows, output_axis=columns)

    return jax.tree_util.tree_map_with_path(dimensions, params)


class AverageState(NamedTuple):
    average: Any
    """Exponential moving average of the parameters."""


def average_params(decay: float) -> optax.GradientTransformation:
    """Keeps ema ← decay · ema + (1 - decay) · parameters, after each update. Goes last in a chain."""

    def init(params: Any) -> AverageState:
        return AverageState(jax.tree.map(jnp.copy, params))

    def update(updates: Any, state: AverageState, params: Any = None) -> tuple[Any, AverageState]:
        new = optax.apply_updates(params, updates)
        return updates, AverageState(optax.incremental_update(new, state.average, 1 - decay))

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]


def evaluation_params(params: Any, opt_state: Any) -> Any:
    """The average of parameters where the optimizer keeps one, else the parameters."""
    found = [node for node in jax.tree.leaves(opt_state, is_leaf=_is_average) if _is_average(node)]
    return found[0].average if found else params


def evaluated(state: TrainState) -> Any:
    """All parameters of the model, those that learn by their average where the optimizer keeps one."""
    return overlay(state.frozen, evaluation_params(state.params, state.opt_state))


def _is_average(node: Any) -> bool:
    return isinstance(node, AverageState)
