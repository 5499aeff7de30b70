"""How well does a run guess hidden words? Loss and accuracy on the test split beside what word counts alone give.

python scripts/benchmark/masked_words.py runs/bert_mini         # the data set must be there: $JAXLLM_DATA
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from checkpoint import open_checkpoint
from jaxtyping import Bool, Float, Int
from record import write_record

from jaxllm.data import Data, Tokenizer, eval_batches
from jaxllm.models import Transformer
from jaxllm.recipe import Job
from jaxllm.training.objectives import MaskedLM
from jaxllm.training.objectives.marks import Entries, mask_id

SENTENCES = (
    "The king and the [MASK] lived in an old castle near the sea .",
    "She opened the [MASK] and looked out at the garden .",
    "The album was released in the United [MASK] in 1999 .",
)
GUESSES = 5
UNKNOWN = "<unk>"
"""What WikiText-2 writes for a rare word, so that a text holds it over and over."""


def main() -> None:
    run_dir, job, params, step = open_checkpoint(__doc__)
    data, tokenizer = job.data, job.tokenizer
    if not isinstance(job.recipe.objective, MaskedLM) or not isinstance(data, Data) or tokenizer is None:
        raise SystemExit(f"a run with the objective MaskedLM is needed: {run_dir} has none")
    if data.test_split is None:
        raise SystemExit(f"the data set {job.recipe.data.dataset} must have a test split: it has none")
    counts = {split: token_counts(data, split, tokenizer) for split in (job.recipe.data.train_split, data.test_split)}
    guesses = guess_all(job, params, data.test_split)
    unknown = np.isin(guesses.targets, tokenizer.encode(UNKNOWN))

    results: dict[str, Any] = {
        "test_unigram_entropy_nats": entropy(counts[data.test_split]),
        **measured(guesses, counts[job.recipe.data.train_split], ~np.zeros_like(unknown)),
        "share_of_unknown_words": float(unknown.mean()),
        "without_unknown_words": measured(guesses, counts[job.recipe.data.train_split], ~unknown),
        "checkpoint_step": step,
        "examples": fill_in(job, jax.device_put(params, jax.devices()[0]), tokenizer, SENTENCES),
    }
    print(json.dumps(results, indent=1, ensure_ascii=False))
    notes = (
        "Test split, tokens of the run's own tokenizer, nats a token. test_unigram_entropy: of the split's own counts of "
        "tokens, marks left out. The rest is of the hidden tokens: loss and accuracy of the model; train_unigram: what counts "
        "of the training split (plus one) make of the same tokens, by cross-entropy and by always guessing the commonest. "
        f"WikiText-2 writes rare words as {UNKNOWN}, which is easily guessed: the figures come once more without its pieces."
    )
    print(write_record("masked_words", job.recipe, results, notes))


class Guesses(NamedTuple):
    """What a model makes of every hidden token of a split."""

    targets: Int[np.ndarray, " hidden"]
    loss: Float[np.ndarray, " hidden"]
    """-log p(target)."""
    right: Bool[np.ndarray, " hidden"]
    """Whether the target is the likeliest."""


def guess_all(job: Job, params: Any, split: str) -> Guesses:
    model = job.model

    @jax.jit
    def guess(params: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        rows = {name: batch[name] for name in ("positions", "segment_ids")}
        logits: Any = model.apply({"params": params}, batch["tokens"], **rows).logits  # type: ignore[union-attr]
        log_probs = jax.nn.log_softmax(jax.numpy.take_along_axis(logits, batch["hidden"][:, :, None], axis=1), axis=-1)
        targets = batch["targets"][:, :, None]
        return -jax.numpy.take_along_axis(log_probs, targets, axis=-1)[:, :, 0], log_probs.argmax(axis=-1)

    params, found = jax.device_put(params, jax.devices()[0]), []
    for batch in eval_batches(job.rows(split), batch_size=job.recipe.evaluate.batch_size or job.recipe.batch_size):
        loss, best = guess(params, batch)
        there = batch["loss_weights"] > 0
        targets = batch["targets"][there]
        found.append((targets, np.asarray(loss)[there], np.asarray(best)[there] == targets))
    return Guesses(*(np.concatenate(column) for column in zip(*found, strict=True)))


def token_counts(data: Data, split: str, tokenizer: Tokenizer) -> Int[np.ndarray, " V"]:
    """How often each token is in a split; marks, which have no text, count as not there."""
    counts = np.bincount(data.rows(split).table.tokens, minlength=tokenizer.vocab_size)
    return np.where(Entries(tokenizer).special, 0, counts)


def entropy(counts: Int[np.ndarray, " V"]) -> float:
    """-Σ p log p of the counts as shares, in nats."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def measured(guesses: Guesses, train: Int[np.ndarray, " V"], chosen: Bool[np.ndarray, " hidden"]) -> dict[str, float]:
    """The model's and the counts' loss and accuracy on some of the hidden tokens."""
    targets = guesses.targets[chosen]
    smooth = np.log((train + 1) / (train + 1).sum())
    return {
        "hidden_tokens": len(targets),
        "test_loss": float(guesses.loss[chosen].mean(dtype=np.float64)),
        "test_accuracy": float(guesses.right[chosen].mean()),
        "train_unigram_loss": float(-smooth[targets].mean()),
        "train_unigram_accuracy": float((targets == train.argmax()).mean()),
    }


def fill_in(job: Job, params: Any, tokenizer: Tokenizer, sentences: Sequence[str]) -> list[dict[str, Any]]:
    """The likeliest words for the [MASK] of each sentence, framed as in training."""
    model, mask = job.model, mask_id(tokenizer)
    assert isinstance(model, Transformer)
    filled = []
    for sentence in sentences:
        before, after = (tokenizer.encode(part) for part in sentence.split("[MASK]"))
        ids = [tokenizer.cls_id, *before, mask, *after, tokenizer.sep_id]
        row = [id for id in ids if id is not None]
        logits: Any = model.apply({"params": params}, np.array([row])).logits  # type: ignore[union-attr]
        probabilities = np.asarray(jax.nn.softmax(logits[0, row.index(mask)]))
        best = np.argsort(-probabilities)[:GUESSES]
        words = [{"word": tokenizer.decode([int(id)]).strip(), "probability": float(probabilities[id])} for id in best]
        filled.append({"sentence": sentence, "guesses": words})
    return filled


if __name__ == "__main__":
    main()
