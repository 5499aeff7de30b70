"""How much of its language a model has lost to its task: its loss on a fixed text before and after.

A decoder says each next token, an encoder with a head for hidden tokens says the hidden ones, the same each time. Where the
run's model has another head, such as a classifier, its blocks are read with the pretrained model's own output matrix.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxllm.data
from jaxllm.data import Batch, Tokenizer
from jaxllm.finetune.tasks.encode import around
from jaxllm.finetune.tasks.target_probs import target_probs
from jaxllm.finetune.tasks.task import run_stack
from jaxllm.models import EncoderDecoderConfig, Transformer, TransformerConfig, VisionConfig, unembed_parts
from jaxllm.recipe.base import Base, pretrained_head
from jaxllm.recipe.job import Job
from jaxllm.sharding import use_mesh

TEXT = Path(jaxllm.data.__file__).parent / "assets" / "plain_text.txt"
"""About 900 words of plain English, written for this."""
ROW_LEN = 256
CHUNK = 64
HIDDEN = 0.15
"""Share of the tokens that an encoder has to say."""


class Forgetting(NamedTuple):
    of: str
    """"next tokens" or "hidden tokens"."""
    tokens: int
    """Tokens that the losses are the mean of."""
    before: float
    """Of the pretrained model, in nats a token."""
    after: float

    def told(self) -> str:
        """In words."""
        return f"loss of a plain text: {self.before:.4f} before, {self.after:.4f} after"


class NoText(ValueError):
    """The message says why, in words that go on with a sentence."""


def forgetting(job: Job, params: Any, base: Base) -> Forgetting:
    """The losses of a run's model before and after.

    Args:
      params: all of the trained model's.
      base: what the run began with.

    Raises:
      NoText: the tokenizer has no tokens for it.
    """
    assert isinstance(base.model, Transformer) and isinstance(job.model, Transformer) and job.tokenizer is not None
    headed = base.model.config
    length = min(ROW_LEN, job.model.context_len)
    rows = text_rows(TEXT.read_text("utf-8"), job.tokenizer, length - length % 16 or length, causal=headed.causal)
    batch = job.place_all(rows)
    output = {name: base.params[name] for name in ("embed", "unembed") if name in base.params}
    own = None if job.model.config.head == headed.head else output
    with use_mesh(job.mesh):
        before = _loss(base.model, headed, base.params, None, batch)
        after = _loss(job.model, headed, params, own, batch)
    of = "next tokens" if headed.causal else "hidden tokens"
    return Forgetting(of, int(rows["loss_weights"].sum()), float(before), float(after))


def no_language(job: Job) -> str | None:
    """Why a fine-tuned model has no language-model loss; None where it has one. Raises NoBase. By all processes."""
    config = job.recipe.model_config
    if isinstance(config, VisionConfig):
        return "a model of images has no language to lose"
    if isinstance(config, EncoderDecoderConfig):
        return "a decoder behind an encoder has no loss of a text alone"
    head = pretrained_head(job)
    if head is None or head.kind != "vocabulary":
        return "the pretrained model has no head that says tokens"
    if job.tokenizer is None or not (config.causal or job.tokenizer.mask_id is not None):
        return "the tokenizer has no token that hides others"
    return None


def text_rows(text: str, tokenizer: Tokenizer, length: int, *, causal: bool) -> Batch:
    """A text as rows of at most `length` tokens, in which every token, or every hidden one, is a target once."""
    try:
        ids = np.array(tokenizer.encode(text), np.int32)
    except ValueError as error:
        raise NoText(f"the tokenizer cannot read the fixed text ({error})") from error
    before, _, after = around(tokenizer, pair=False)
    overlap = int(causal and not before)  # the first token of a row is a target of the row before
    after = [] if causal else after
    step = length - len(before) - len(after) if not causal else length + 1 - len(before) - overlap
    pieces = [ids[at : at + step + overlap] for at in range(0, len(ids) - overlap, step)]
    shape = (len(pieces), length)
    batch = {name: np.zeros(shape, np.int32) for name in ("tokens", "targets", "positions", "segment_ids")}
    weights = np.zeros(shape, np.float32)
    random, mask = np.random.default_rng(0), 0 if tokenizer.mask_id is None else tokenizer.mask_id
    for row, piece in enumerate(pieces):
        whole = np.array([*before, *piece, *after], np.int32)
        if causal:
            read, wanted = whole[:-1], whole[1:]
            counts = np.arange(len(read)) >= len(before) - 1
        else:
            counts = np.zeros(len(whole), bool)
            counts[len(before) : len(whole) - len(after)] = random.random(len(piece)) < HIDDEN
            read, wanted = whole.copy(), whole
            read[counts] = mask
        there = slice(len(read))
        batch["tokens"][row, there], batch["targets"][row, there] = read, wanted
        batch["positions"][row, there], batch["segment_ids"][row, there] = np.arange(len(read)), 1
        weights[row, there] = counts
    return batch | {"loss_weights": weights}


@partial(jax.jit, static_argnums=(0, 1))
def _loss(model: Transformer, headed: TransformerConfig, params: Any, output: Any, batch: Any) -> jax.Array:
    """Nats a target.

    Args:
      headed: the config of what reads the hidden states.
      output: that one's parameters; None for the model's own.
    """
    params = model.prepare(params)
    hidden, _ = run_stack(model, params, batch, None)
    parts = unembed_parts(headed, params if output is None else output)
    sums = target_probs(headed, parts, hidden, batch["targets"], CHUNK).sums(batch["loss_weights"])
    return sums.cross_entropy / sums.weight
