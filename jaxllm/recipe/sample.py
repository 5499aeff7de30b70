"""What a trained model makes of an example, in words: for the report, and for the eye."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxllm.data import Batch, Tokenizer
from jaxllm.finetune.tasks import is_task
from jaxllm.inference import SamplingConfig, beam_search, encode_sources, generate
from jaxllm.models import EncoderDecoder, Transformer
from jaxllm.recipe.job import Job
from jaxllm.training.objectives import CausalLM, Denoising, MaskedLM, PrefixLM, SequenceToSequence, SpanCorruption
from jaxllm.training.objectives.span_corruption import CorruptSpans

PAIRS_SHOWN = 5
BEAMS = 4


def make_sample(job: Job, params: Any) -> str | None:
    """A continued prompt, a text with its gaps filled in, or texts with what was written of them; None for images.

    Gaps are filled in brackets; where the text has something else, that follows: "the [dog (cat)] sat".
    """
    objective, model, tokenizer = job.recipe.objective, job.model, job.tokenizer
    if is_task(objective):
        return None
    if tokenizer is None:
        return None
    if isinstance(objective, CausalLM | PrefixLM) and isinstance(model, Transformer):
        config, prefix = job.recipe.sample, isinstance(objective, PrefixLM)
        return config.prompt + generate(model, params, tokenizer, [config.prompt], config.sampling, prefix=prefix)[0]
    batch = job.rows(job.recipe.data.validation_split or job.recipe.data.train_split).rows(np.zeros(1, np.int64))
    if isinstance(objective, MaskedLM) and isinstance(model, Transformer):
        return _masked(model, params, tokenizer, batch)
    if isinstance(objective, SpanCorruption) and isinstance(model, EncoderDecoder):
        return _filled(job, model, params, tokenizer, batch)
    if isinstance(objective, SequenceToSequence | Denoising) and isinstance(model, EncoderDecoder):
        return _written(model, params, tokenizer, batch)
    return None


def _masked(model: Transformer, params: Any, tokenizer: Tokenizer, batch: Batch) -> str:
    tokens, positions, segment_ids = (jnp.asarray(batch[name]) for name in ("tokens", "positions", "segment_ids"))
    output: Any = model.apply({"params": params}, tokens, positions=positions, segment_ids=segment_ids)
    there = batch["segment_ids"][0] > 0
    places = batch["hidden"][0][batch["loss_weights"][0] > 0]
    text, hidden = batch["tokens"][0].copy(), np.zeros(len(there), bool)
    text[places], hidden[places] = batch["targets"][0][: len(places)], True
    guesses = np.asarray(output.logits[0]).argmax(axis=-1)
    rows = zip(guesses[there], text[there], hidden[there], strict=True)
    gaps = [([int(guess)], [int(token)]) if gap else None for guess, token, gap in rows]
    return _with_gaps(tokenizer, [[int(token)] for token in text[there]], gaps)


def _filled(job: Job, model: EncoderDecoder, params: Any, tokenizer: Tokenizer, batch: Batch) -> str:
    """The text of the first example with what the model writes for each of its marks."""
    examples: Any = job.rows(job.recipe.data.validation_split or job.recipe.data.train_split)
    corrupt: CorruptSpans = examples.make
    read, wanted = batch["tokens"][0][batch["segment_ids"][0] > 0], batch["targets"][0][batch["loss_weights"][0] > 0]
    (written,) = _write(model, params, [read.tolist()], tokenizer)
    parts = [_by_mark(ids, corrupt.sentinels, corrupt.end) for ids in (written, wanted.tolist())]
    pieces = [[int(token)] for token in read if token != corrupt.end]
    gaps = [
        (parts[0].get(piece[0], []), parts[1].get(piece[0], [])) if piece[0] in corrupt.sentinels else None for piece in pieces
    ]
    return _with_gaps(tokenizer, pieces, gaps)


def _by_mark(ids: Sequence[int], marks: tuple[int, ...], end: int) -> dict[int, list[int]]:
    """What stands after each mark."""
    parts: dict[int, list[int]] = {}
    here: list[int] = []
    for token in ids:
        if token == end:
            break
        if token in marks:
            here = parts.setdefault(token, [])
        else:
            here.append(token)
    return parts


def _with_gaps(tokenizer: Tokenizer, pieces: list[list[int]], gaps: Sequence[tuple[list[int], list[int]] | None]) -> str:
    """Text in which gaps, each with what was written and what there was, stand in brackets."""
    words: list[str] = []
    run: list[int] = []
    for piece, gap in [*zip(pieces, gaps, strict=True), ([], ([], []))]:
        if gap is None:
            run += piece
            continue
        words.append(_decoded(tokenizer, run))
        run = []
        if piece:
            written, wanted = (_decoded(tokenizer, ids).strip() for ids in gap)
            words.append(f"[{written}]" if written == wanted else f"[{written} ({wanted})]")
    return " ".join(word.strip() for word in words if word.strip())


def _written(model: EncoderDecoder, params: Any, tokenizer: Tokenizer, batch: Batch) -> str:
    """The first texts, what is written of each, and what should be."""
    segments, target_segments = batch["segment_ids"][0], batch["decoder_segment_ids"][0]
    shown = range(1, min(int(segments.max()), PAIRS_SHOWN) + 1)
    sources = [batch["tokens"][0][segments == k].tolist() for k in shown]
    wanted = [batch["targets"][0][target_segments == k].tolist() for k in shown]
    texts = zip(sources, _write(model, params, sources, tokenizer), wanted, strict=True)
    return "\n\n".join("\n".join(_decoded(tokenizer, ids).strip() for ids in lines) for lines in texts)


def _write(model: EncoderDecoder, params: Any, sources: list[list[int]], tokenizer: Tokenizer) -> list[list[int]]:
    assert model.config.start_id is not None and tokenizer.eos_id is not None
    room = min(model.context_len, 2 * max(map(len, sources)) + 16)
    sampling = SamplingConfig(max_tokens=room, num_beams=BEAMS, temperature=0.0)
    memory = encode_sources(model, params, sources)
    return beam_search(
        model, params, [[model.config.start_id]] * len(sources), sampling, eos_ids=[tokenizer.eos_id], memory=memory
    )


def _decoded(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Text of ids; marks that an objective added to the vocabulary have none."""
    return tokenizer.decode([id for id in ids if id < tokenizer.vocab_size])
