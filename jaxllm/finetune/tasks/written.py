"""Texts that a model writes for examples, and how much they have in common with those that were asked for."""

import importlib.util
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxllm.checkpoint import Direction
from jaxllm.data import Tokenizer
from jaxllm.evaluate.metrics import Scores, Statistic, mean_of
from jaxllm.inference import SamplingConfig, decode_params, generate
from jaxllm.inference.writer import Writer

_WORD = re.compile(r"[\u3400-\u9fff\u3040-\u30ff]|[^\W_]+")
"""A run of letters and digits; a character of Chinese or Japanese by itself."""
SHOWN = 5


def written_metrics() -> dict[str, Direction]:
    """What `Written.scores` measures."""
    names = ("rouge_l", "bleu") if importlib.util.find_spec("sacrebleu") is not None else ("rouge_l",)
    return dict.fromkeys(names, "highest")


class Written(NamedTuple):
    prompts: list[str]
    texts: list[str]
    """What the model wrote."""
    references: list[list[str]]
    """What was asked for: any of some texts."""

    def show(self) -> str:
        """The first prompts, each with what was written and the first text that was asked for."""
        blocks = []
        for prompt, text, wanted in list(zip(self.prompts, self.texts, self.references, strict=True))[:SHOWN]:
            blocks.append(f"{prompt.strip()}\n-> {text.strip()}\n   ({wanted[0].strip()})")
        return "\n\n".join(blocks)

    def scores(self) -> Scores:
        """ROUGE-L, and BLEU where sacrebleu is installed."""
        rouge = np.array([rouge_l(text, wanted) for text, wanted in zip(self.texts, self.references, strict=True)])
        statistics: dict[str, Statistic] = {"rouge_l": mean_of(rouge)}
        if "bleu" in written_metrics():
            statistics["bleu"] = bleu(self.texts, self.references)
        return Scores(len(self.texts), statistics)


def write_texts(
    model: Writer,
    params: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    num_beams: int | None = None,
    batch_size: int = 16,
) -> list[str]:
    """The likeliest text for each prompt: greedy, or by a beam search."""
    sampling = SamplingConfig(max_tokens=max_tokens, temperature=0.0, num_beams=num_beams)
    params, texts = decode_params(model, params), []
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))  # of like length, for little padding
    for start in range(0, len(order), batch_size):
        batch = [prompts[number] for number in order[start : start + batch_size]]
        texts += generate(model, params, tokenizer, batch, sampling)
    return [text for _, text in sorted(zip(order, texts, strict=True))]


def rouge_l(text: str, references: Sequence[str]) -> float:
    """F1 of the longest common subsequence of words (Lin 2004), 0 to 100, for the reference that is met best."""
    return max(_common(words_of(text), words_of(reference)) for reference in references)


def words_of(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _common(a: list[str], b: list[str]) -> float:
    if not a or not b:
        return 0.0
    numbers = {word: number for number, word in enumerate(dict.fromkeys(b))}
    wanted = np.array([numbers[word] for word in b])
    lengths = np.zeros(len(b) + 1, np.int64)
    for word in a:
        longer = np.maximum(lengths[1:], lengths[:-1] + (wanted == numbers.get(word, -1)))
        lengths[1:] = np.maximum.accumulate(longer)
    return float(200 * lengths[-1] / (len(a) + len(b)))


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> Statistic:
    """BLEU of all texts together (Papineni 2002), 0 to 100, by sacrebleu with its own settings."""
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(effective_order=False)
    each = [
        metric.corpus_score([text], [[reference] for reference in wanted])
        for text, wanted in zip(texts, references, strict=True)
    ]
    table = np.array([[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in each], np.int64)
    orders = len(each[0].counts)

    def of(numbers: np.ndarray) -> float:
        sums = table[numbers].sum(axis=0).tolist()
        counts, totals = sums[:orders], sums[orders : 2 * orders]
        return float(BLEU.compute_bleu(counts, totals, sums[-2], sums[-1], smooth_method="exp").score)

    return of
