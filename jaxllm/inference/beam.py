"""Beam search: the likeliest continuations found by keeping the best few at every token.

Letters: B prompts, W beams of a prompt, C candidates, M tokens to write at most, V vocabulary.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxllm.inference.constrain import Constraints, constrain
from jaxllm.inference.decode import PaddedPrompts, bucket, pad_prompts, read_prompts
from jaxllm.inference.sampling import SamplingConfig, find_constraints
from jaxllm.inference.writer import DecodeParams, Writer, decode_params, unembed, write_tokens, writer_config
from jaxllm.models import Cache, Encoded, take_rows

IMPOSSIBLE = -1e9
"""Score of a beam that is not there: far below any sum of log-probabilities, and finite."""


class Beams(NamedTuple):
    """Some texts a prompt, best first."""

    tokens: Int[Array, "B W M"]
    """What was written; -1 after the end."""
    score: Float[Array, "B W"]
    """Log-probability; of finished texts divided by length ** length_penalty."""
    finished: Bool[Array, "B W"]


class SearchState(NamedTuple):
    cache: Cache
    hidden: Float[Array, "X 1 D"]
    """The last hidden state of each running text; X = B W rows."""
    position: Int[Array, " X"]
    running: Beams
    done: Beams
    may_improve: Bool[Array, " B"]
    """Whether a running text may still beat the worst finished one."""
    may_go_on: Bool[Array, ""]
    """Whether a candidate was left that had not come to its end."""
    written: Int[Array, ""]
    """Tokens written so far."""


class Rules(NamedTuple):
    """What is fixed for a search, beside the model."""

    width: int
    max_tokens: int
    vocab_size: int
    eos_ids: tuple[int, ...]
    length_penalty: float
    early_stopping: bool


def beam_search(
    model: Writer,
    params: Any,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    *,
    eos_ids: Sequence[int] = (),
    memory: Encoded | None = None,
    vocab_size: int | None = None,
    prefix: bool = False,
) -> list[list[int]]:
    """The best text of each prompt, by log-probability over length ** length_penalty; the end token that closes it is kept.

    Args:
      memory: what an encoder made of the texts to write from.
      vocab_size: tokens that may be written. By default the model's.
      prefix: read prompts from both sides, as a model that was trained with a prefix does.

    Raises:
      ValueError: a prompt and `max_tokens` that together exceed the model's context.
    """
    assert sampling.num_beams is not None
    context_len, params = model.context_len, decode_params(model, params)
    padded = pad_prompts(prompts, context_len, [len(prompt) for prompt in prompts] if prefix else None)
    needed = int(padded.longest) + sampling.max_tokens
    if needed > context_len + 1:
        raise ValueError(
            f"beam search needs room for the prompt and max_tokens in the model's context of {context_len} tokens: "
            f"got {padded.longest} + {sampling.max_tokens}; ask for fewer tokens or shorten the prompt"
        )
    vocab_size = vocab_size or writer_config(model).vocabulary
    rules = Rules(
        sampling.num_beams, sampling.max_tokens, vocab_size, tuple(eos_ids), sampling.length_penalty, sampling.early_stopping
    )
    constraints = find_constraints(sampling, [prompt for prompt in prompts for _ in range(rules.width)], rules.vocab_size)
    cache_len = max(bucket(min(needed, context_len), context_len), padded.tokens.shape[1])
    last = padded.positions[:, int(padded.longest) - 1]
    padded = padded._replace(longest=np.int32(padded.longest))
    best = np.asarray(_search(model, rules, cache_len, params, constraints, padded, last, memory))
    return [[int(token) for token in row if token >= 0] for row in best]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _search(
    model: Writer,
    rules: Rules,
    cache_len: int,
    params: DecodeParams,
    constraints: Constraints | None,
    prompts: PaddedPrompts,
    last: Array,
    memory: Encoded | None,
) -> Int[Array, "B M"]:
    B, W, M = prompts.tokens.shape[0], rules.width, rules.max_tokens
    hidden, cache = read_prompts(model, cache_len, params, prompts, memory)
    rows = jnp.repeat(jnp.arange(B), W)
    nothing = jnp.full((B, W, M), -1, jnp.int32)
    score = jnp.full((B, W), IMPOSSIBLE)
    none = jnp.zeros((B, W), bool)
    state = SearchState(
        cache=take_rows(cache, rows),
        hidden=hidden[rows],
        position=last[rows],
        running=Beams(nothing, score.at[:, 0].set(0.0), none),  # all start alike: only one of them may count
        done=Beams(nothing, score, none),
        may_improve=jnp.ones((B,), bool),
        may_go_on=jnp.ones((), bool),
        written=jnp.zeros((), jnp.int32),
    )

    def wanted(state: SearchState) -> Bool[Array, ""]:
        wanted = jnp.any(state.may_improve) & state.may_go_on
        return wanted & ~jnp.all(state.done.finished) if rules.early_stopping else wanted

    return jax.lax.while_loop(wanted, partial(_step, model, rules, params, constraints), state).done.tokens[:, 0]


def _step(
    model: Writer, rules: Rules, params: DecodeParams, constraints: Constraints | None, state: SearchState
) -> SearchState:
    log_probs = jax.nn.log_softmax(unembed(model, params.tokens, state.hidden)[:, 0, : rules.vocab_size], axis=-1)
    if constraints is not None:
        log_probs = constrain(log_probs, constraints, state.written)
    candidates, parents = _candidates(rules, state, log_probs)
    ended = candidates.finished
    running, chosen = _best(candidates._replace(score=candidates.score + IMPOSSIBLE * ended), rules.width)
    parents = jnp.take_along_axis(parents, chosen, axis=1)
    done = _with_finished(rules, state, candidates)
    written = state.written + 1
    first_row = jnp.arange(parents.shape[0])[:, None] * rules.width
    cache = take_rows(state.cache, (first_row + parents).reshape(-1))
    tokens = jax.lax.dynamic_index_in_dim(running.tokens, state.written, axis=2, keepdims=False).reshape(-1, 1)
    position = state.position + 1
    out = write_tokens(model, params.tokens, tokens, cache, positions=position[:, None])
    assert out.cache is not None
    best_running = running.score[:, 0] / written.astype(jnp.float32) ** rules.length_penalty
    worst_done = jnp.where(done.finished, jnp.min(done.score, axis=1, keepdims=True), IMPOSSIBLE)
    may_improve = state.may_improve & jnp.any(best_running[:, None] > worst_done, axis=1)
    return SearchState(out.cache, out.hidden, position, running, done, may_improve, ~jnp.all(ended), written)


def _candidates(rules: Rules, state: SearchState, log_probs: Float[Array, "X V"]) -> tuple[Beams, Int[Array, "B C"]]:
    """The best continuations by one token, and the beam each continues.

    There are so many that enough are left when some end here: one more for each beam and each way to end.
    """
    B, V = state.running.score.shape[0], log_probs.shape[-1]
    scores = (log_probs.reshape(B, rules.width, V) + state.running.score[:, :, None]).reshape(B, -1)
    count = min(max(2, 1 + len(rules.eos_ids)) * rules.width, scores.shape[1])
    score, place = jax.lax.top_k(scores, count)
    parents, token = place // V, (place % V).astype(jnp.int32)
    tokens = jnp.take_along_axis(state.running.tokens, parents[:, :, None], axis=1)
    tokens = jax.lax.dynamic_update_index_in_dim(tokens, token, state.written, axis=2)
    ended = jnp.isin(token, jnp.asarray(rules.eos_ids, jnp.int32)) if rules.eos_ids else jnp.zeros(token.shape, bool)
    return Beams(tokens, score, ended | (state.written + 1 == rules.max_tokens)), parents


def _with_finished(rules: Rules, state: SearchState, candidates: Beams) -> Beams:
    """The best finished texts of those there were and those candidates that end now and are among the best `width`."""
    count = candidates.score.shape[1]
    finished = candidates.finished & (jnp.arange(count) < rules.width)[None, :]
    score = candidates.score / (state.written + 1).astype(jnp.float32) ** rules.length_penalty
    barred = ~finished | ~state.may_improve[:, None]
    if rules.early_stopping:
        barred = barred | jnp.all(state.done.finished, axis=1, keepdims=True)
    new = Beams(candidates.tokens, score + IMPOSSIBLE * barred, finished)
    both = jax.tree.map(lambda old, new: jnp.concatenate([old, new], axis=1), state.done, new)
    return _best(both, rules.width)[0]


def _best(beams: Beams, count: int) -> tuple[Beams, Int[Array, "B W"]]:
    """The `count` best by score, and which they were."""
    score, chosen = jax.lax.top_k(beams.score, count)
    tokens = jnp.take_along_axis(beams.tokens, chosen[:, :, None], axis=1)
    return Beams(tokens, score, jnp.take_along_axis(beams.finished, chosen, axis=1)), chosen
