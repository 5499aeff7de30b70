"""What a fine-tuned model says of new texts: their labels, a score, the labels of their words, the answer to a question."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Int

from jaxllm.data import Tokenizer
from jaxllm.finetune.tasks.encode import around, encode_text, encode_words
from jaxllm.finetune.tasks.question import Answer, EncodeQuestion, best_spans
from jaxllm.inference.padded import pad, padded_batches
from jaxllm.interchange.labels import default_names
from jaxllm.models import Model, Transformer, TransformerConfig

Text = str | tuple[str, str]
"""A text, or a pair of them."""
WINDOW = 384
"""Most tokens that a question and a part of its context have together."""
STRIDE, MAX_QUESTION, MAX_ANSWER = 64, 64, 30
"""Tokens that two such parts share, and most tokens of a question and of an answer."""
BATCH = 32


class Reading:
    """Methods of a loaded model of text whose head was trained on a task."""

    model: Model
    tokenizer: Tokenizer | None
    source: Any
    recipe: Any

    def __call__(self, *inputs: Any, **arguments: Any) -> Any:
        raise NotImplementedError

    def probabilities(self, texts: Text | Sequence[Text]) -> Float32[np.ndarray, "N C"]:
        """How likely each label is of each text; each by itself where the model was trained on texts with several.

        Args:
          texts: a text, a pair of texts as a tuple, or a list of either; what is longer than the context is cut.

        Raises:
          ValueError: the model has no head for labels of texts.
        """
        logits = self._text_logits("classify", texts)
        if logits.shape[1] == 1:
            raise ValueError(f"classify needs a model with labels: {self.source} gives one number, by m.score(texts)")
        objective = getattr(self.recipe, "objective", None)
        of_run = getattr(getattr(objective, "task", objective), "several", False)  # whose `model` may be given without it
        several = self.model.config.head.several or of_run  # type: ignore[union-attr]
        return np.asarray(jax.nn.sigmoid(logits) if several else jax.nn.softmax(logits, axis=-1))

    def score(self, texts: Text | Sequence[Text]) -> Float32[np.ndarray, " N"]:
        """The number that a model trained by regression gives each text, or pair of texts.

        Raises:
          ValueError: the model gives no number.
        """
        logits = self._text_logits("score", texts)
        if logits.shape[1] != 1:
            raise ValueError(f"score needs a model with one number a text: {self.source} has labels, by m.classify(texts)")
        return logits[:, 0]

    def tag(self, texts: str | Sequence[str] | Sequence[Sequence[str]]) -> list[list[tuple[str, str]]]:
        """Each word with its label.

            m.tag("Anna lives in Bonn")        # [[("Anna", "B-PER"), ("lives", "O"), ...]]

        Args:
          texts: a text, whose words have spaces between; several; or several lists of words.

        Raises:
          ValueError: the model has no head for labels of words.
        """
        config, tokenizer = self._headed("tag", "tokens")
        names = config.head.label_names or default_names(config.head.outputs)
        unread = names.index("O") if "O" in names else 0
        listed = [texts] if isinstance(texts, str) else texts
        told: list[list[tuple[str, str]]] = []
        for text in listed:
            words = text.split() if isinstance(text, str) else list(text)
            labels = [names[label] for part in self._parts(words) for label in self._word_labels(tokenizer, part, unread)]
            told.append(list(zip(words, labels, strict=True)))
        return told

    def answer(self, question: str, context: str) -> Answer:
        """The part of a context that answers a question, "" where none does, and its score.

        Raises:
          ValueError: the model has no head for answers.
        """
        config, tokenizer = self._headed("answer", "span")
        types = config.token_types is not None and config.token_types > 1
        encode = EncodeQuestion(tokenizer, min(WINDOW, self._limit), STRIDE, MAX_QUESTION, types)
        windows = encode({"question": question, "context": context, "answers": {"text": [], "start": []}})
        rows = [window.arrays["tokens"].tolist() for window in windows]
        best, none = Answer("", -np.inf), np.inf
        for members, tokens, mask in padded_batches(rows, self._limit, BATCH):
            batch = {
                name: pad([window.arrays[name].tolist() for window in windows], members, tokens.shape)
                for name in ("char_begins", "char_ends", *(("token_types",) if types else ()))
            }
            logits = self(tokens, mask, **({"token_types": batch["token_types"]} if types else {})).logits
            found: Any = jax.device_get(best_spans(logits, batch, MAX_ANSWER))
            for place in range(len(members)):
                none = min(none, float(found["none"][place]))
                if found["score"][place] > best.score:
                    text = context[int(found["begin"][place]) : int(found["end"][place])]
                    best = Answer(text, float(found["score"][place]))
        return best if best.score > none else Answer("", none)

    @property
    def _limit(self) -> int:
        return self.model.context_len  # type: ignore[union-attr]

    def _text_logits(self, what: str, texts: Text | Sequence[Text]) -> Float32[np.ndarray, "N C"]:
        config, tokenizer = self._headed(what, "sequence")
        listed: Any = [texts] if isinstance(texts, str | tuple) else texts
        pairs = [text if isinstance(text, tuple) else (text, None) for text in listed]
        encoded = [encode_text(tokenizer, text, pair, self._limit) for text, pair in pairs]
        logits = np.zeros((len(encoded), config.head.outputs), np.float32)
        types = config.token_types is not None and config.token_types > 1
        for members, tokens, mask in padded_batches([each.ids.tolist() for each in encoded], self._limit, BATCH):
            kinds = {"token_types": pad([each.token_types.tolist() for each in encoded], members, tokens.shape)}
            logits[members] = np.asarray(self(tokens, mask, **(kinds if types else {})).logits)[: len(members)]
        return logits

    def _parts(self, words: list[str]) -> list[list[str]]:
        """Words in a row, as many at once as the model can read."""
        _, tokenizer = self._headed("tag", "tokens")
        before, _, after = around(tokenizer, pair=False)
        room, owners = self._limit - len(before) - len(after), np.array(encode_words(tokenizer, words).words, np.int64)
        counts = np.bincount(owners, minlength=len(words))
        parts: list[list[str]] = []
        left = 0
        for word, count in zip(words, counts, strict=True):
            if not parts or count > left:
                parts.append([])
                left = room
            parts[-1].append(word)
            left -= int(count)
        return parts

    def _word_labels(self, tokenizer: Tokenizer, words: list[str], unread: int) -> Int[np.ndarray, " W"]:
        """The labels' numbers; `unread` for a word without a token."""
        before, _, after = around(tokenizer, pair=False)
        ids, owner = encode_words(tokenizer, words)
        ids = ids[: self._limit - len(before) - len(after)]  # of one word that is longer than the context
        ((_, tokens, mask),) = padded_batches([[*before, *ids, *after]], self._limit, 1)
        labels = np.asarray(self(tokens, mask).logits)[0].argmax(axis=-1)[len(before) : len(before) + len(ids)]
        found = np.full(len(words), unread)
        order = range(len(ids)) if self.model.config.causal else reversed(range(len(ids)))  # type: ignore[union-attr]
        for place in order:  # a word's label stands at its first token, of a causal model at its last
            found[owner[place]] = labels[place]
        return found

    def _headed(self, what: str, kind: str) -> tuple[TransformerConfig, Tokenizer]:
        """The model's config and tokenizer, once it is known to have such a head."""
        config = self.model.config
        if not isinstance(self.model, Transformer) or not isinstance(config, TransformerConfig) or config.head.kind != kind:
            has = f"a {config.head.kind!r} head" if isinstance(config, TransformerConfig) else f"{type(config).__name__}"
            raise ValueError(f"{what} needs a model of text with a {kind!r} head: {self.source} has {has}; fine-tune it first")
        if self.tokenizer is None:
            raise ValueError(f"{what} needs a tokenizer: {self.source} has none; put its tokenizer files there")
        return config, self.tokenizer
