"""From logits to the next token: temperature, top-k, top-p, min-p, repetition penalty, one key a row.

Letters: B rows, V vocabulary. A token that must not be drawn has the logit -inf.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key

from jaxllm.inference.constrain import Constraints, constrain, make_constraints

LOWEST_TEMPERATURE = 1e-6
"""Already greedy but for ties; far smaller ones would leave the range of float32."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How text is continued. The defaults draw from the model's distribution as it is."""

    max_tokens: int = 256
    """Tokens to add to a prompt, at most."""
    temperature: float = 1.0
    """Divides the logits. 0 is the limit of ever smaller temperatures: always the likeliest token (greedy)."""
    top_k: int | None = None
    """Draw among this many likeliest tokens (and those tied with the last of them). By default among all."""
    top_p: float | None = None
    """Draw among the likeliest tokens that together reach this probability. By default among all."""
    min_p: float | None = None
    """Draw among tokens at least this probable relative to the likeliest one. By default among all."""
    repetition_penalty: float | None = None
    """Above 1, makes tokens that already occur in the prompt or the text less likely. By default nothing is done."""
    seed: int = 0
    """Seed of the draws. A prompt gets the same text whatever the other prompts beside it."""
    stop: tuple[str, ...] = ()
    """Texts that end the completion; the completion is cut before the first of them."""
    suppress: tuple[int, ...] = ()
    """Ids of tokens that are never written."""
    begin_suppress: tuple[int, ...] = ()
    """Ids of tokens that are not written first; where the first token is forced, not second."""
    forced_bos: int | None = None
    """Id of the first token that is written, such as a language's, where the prompt is a single token, as it always is for the
    decoder of a model that has an encoder, too."""
    forced_eos: tuple[int, ...] = ()
    """Ids of which one is the last token of a text that comes to max_tokens."""
    num_beams: int | None = None
    """Beam search: the likeliest text found by keeping this many at every token; nothing is drawn then."""
    length_penalty: float = 1.0
    """Beam search: texts compete by log-probability over their length to this power; above 0 longer ones gain."""
    early_stopping: bool = False
    """Beam search: stop as soon as num_beams texts have ended; otherwise when no running one is likely to be better."""

    def __post_init__(self) -> None:
        self._check_kinds()
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1: got {self.max_tokens}")
        if self.temperature != 0 and not LOWEST_TEMPERATURE <= self.temperature < float("inf"):
            raise ValueError(
                f"temperature must be 0 (greedy) or a number of at least {LOWEST_TEMPERATURE}: got {self.temperature}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1: got {self.top_k}; leave it out to draw among all tokens")
        for field in ("top_p", "min_p"):
            value = getattr(self, field)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{field} must be above 0 and at most 1: got {value}; leave it out to switch it off")
        if self.repetition_penalty is not None and not 0 < self.repetition_penalty < float("inf"):
            raise ValueError(f"repetition_penalty must be a positive number: got {self.repetition_penalty}")
        if self.num_beams is not None and self.num_beams < 1:
            raise ValueError(f"num_beams must be at least 1: got {self.num_beams}; leave it out to draw tokens")
        for field in ("suppress", "begin_suppress", "forced_eos"):
            if any(token < 0 for token in getattr(self, field)):
                raise ValueError(f"{field} must hold token ids of at least 0: got {min(getattr(self, field))}")
        if self.forced_bos is not None and self.forced_bos < 0:
            raise ValueError(f"forced_bos must be a token id of at least 0: got {self.forced_bos}; leave it out to force none")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2^32): got {self.seed}")
        if "" in self.stop:
            raise ValueError("stop must hold texts of at least one character: got an empty one")

    def _check_kinds(self) -> None:
        """A number is what Python can use as one, of NumPy and JAX as well."""
        whole, real = ("a whole number", "__index__"), ("a number", "__float__")
        kinds = dict.fromkeys(("max_tokens", "top_k", "seed", "num_beams"), whole)
        kinds |= dict.fromkeys(("temperature", "top_p", "min_p", "repetition_penalty", "length_penalty"), real)
        for field, (kind, method) in kinds.items():
            value = getattr(self, field)
            if not hasattr(value, method) and (value is not None or getattr(type(self), field) is not None):
                raise ValueError(f"{field} must be {kind}: got {value!r}")
        if isinstance(self.stop, str):
            raise ValueError(f"stop must be a list of texts: got {self.stop!r}; write [{self.stop!r}]")


class Drawing(NamedTuple):
    """The numbers that a draw needs, as a pytree: a compiled program depends on which are None, not on their values."""

    temperature: Float[ArrayLike, ""] | None
    """None for greedy, which leaves the three filters below out as well."""
    top_k: Int[ArrayLike, ""] | None
    top_p: Float[ArrayLike, ""] | None
    min_p: Float[ArrayLike, ""] | None
    repetition_penalty: Float[ArrayLike, ""] | None
    constraints: Constraints | None = None
    """Tokens that are forced or barred."""


def make_drawing(sampling: SamplingConfig, constraints: Constraints | None = None) -> Drawing:
    """What `sample` needs of the sampling."""
    penalty = _float32(sampling.repetition_penalty)
    if sampling.temperature == 0:
        return Drawing(None, None, None, None, penalty, constraints)
    top_k = None if sampling.top_k is None else np.int32(min(sampling.top_k, np.iinfo(np.int32).max))
    filters = top_k, _float32(sampling.top_p), _float32(sampling.min_p)
    return Drawing(_float32(sampling.temperature), *filters, penalty, constraints)


def find_constraints(sampling: SamplingConfig, prompts: Sequence[Sequence[int]], vocab_size: int) -> Constraints | None:
    """The tokens that the sampling forces or bars in texts that begin with these prompts.

    Raises:
      ValueError: a token is forced that cannot be written.
    """
    fields = ("max_tokens", "suppress", "begin_suppress", "forced_bos", "forced_eos")
    return make_constraints(prompts, vocab_size, **{name: getattr(sampling, name) for name in fields})


def _float32(value: float | None) -> np.float32 | None:
    """The nearest positive float32 that is neither infinite nor so small that a processor takes it for 0."""
    limits = np.finfo(np.float32)
    return None if value is None else np.float32(min(max(value, float(limits.tiny)), float(limits.max)))


def sample(
    keys: Key[Array, " B"],
    logits: Float[Array, "B V"],
    drawing: Drawing,
    seen: Bool[Array, "B V"] | None = None,
    drawn: Int[Array, ""] | None = None,
) -> Int[Array, " B"]:
    """Draws one token a row, after the steps that `drawing` names, in the order of this file.

        sample(keys, logits, make_drawing(SamplingConfig(top_k=40)))

    Args:
      keys: one key a row, so that what a row draws does not depend on the rows beside it.
      seen: the tokens that a row has so far; only the repetition penalty reads it.
      drawn: how many were drawn before; only the constraints read it.
    """
    logits = logits.astype(jnp.float32)
    if drawing.repetition_penalty is not None:
        assert seen is not None, "the repetition penalty needs to know the tokens so far"
        logits = apply_repetition_penalty(logits, seen, drawing.repetition_penalty)
    if drawing.constraints is not None:
        assert drawn is not None, "constraints need to know how many tokens were drawn"
        logits = constrain(logits, drawing.constraints, drawn)
    if drawing.temperature is None:
        return jnp.argmax(logits, axis=-1)
    logits = apply_temperature(logits, drawing.temperature)
    if drawing.top_k is not None:
        logits = apply_top_k(logits, drawing.top_k)
    if drawing.top_p is not None:
        logits = apply_top_p(logits, drawing.top_p)
    if drawing.min_p is not None:
        logits = apply_min_p(logits, drawing.min_p)
    return jax.vmap(jax.random.categorical)(keys, logits)


def apply_repetition_penalty(
    logits: Float[Array, "B V"], seen: Bool[Array, "B V"], penalty: Float[ArrayLike, ""]
) -> Float[Array, "B V"]:
    """Seen tokens: x / penalty where x > 0, x * penalty elsewhere (Keskar et al. 2019, arXiv:1909.05858)."""
    return jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def apply_temperature(logits: Float[Array, "B V"], temperature: Float[ArrayLike, ""]) -> Float[Array, "B V"]:
    """x / temperature."""
    return logits / temperature


def apply_top_k(logits: Float[Array, "B V"], k: Int[ArrayLike, ""]) -> Float[Array, "B V"]:
    """Only the k largest stay (all, where k exceeds V)."""
    rising = jnp.sort(logits, axis=-1)
    kth = jax.lax.dynamic_index_in_dim(rising, jnp.maximum(logits.shape[-1] - k, 0), axis=-1)
    return jnp.where(logits >= kth, logits, -jnp.inf)


def apply_top_p(logits: Float[Array, "B V"], p: Float[ArrayLike, ""]) -> Float[Array, "B V"]:
    """Only the smallest set of likeliest tokens whose probabilities reach p stays (Holtzman et al. 2019, nucleus)."""
    probs = jax.nn.softmax(logits, axis=-1)
    falling = jnp.flip(jnp.sort(probs, axis=-1), axis=-1)
    before = jnp.cumsum(falling, axis=-1) - falling
    reached = (before >= p) & jnp.less(p, 1)  # rounding in the sum must not drop the rarest tokens where all are wanted
    last_kept = jnp.min(jnp.where(reached, jnp.inf, falling), axis=-1, keepdims=True)
    return jnp.where(probs >= last_kept, logits, -jnp.inf)


def apply_min_p(logits: Float[Array, "B V"], min_p: Float[ArrayLike, ""]) -> Float[Array, "B V"]:
    """Only tokens with at least min_p times the probability of the likeliest stay (Nguyen et al. 2024, min-p)."""
    return jnp.where(logits >= logits.max(axis=-1, keepdims=True) + jnp.log(min_p), logits, -jnp.inf)
