"""Exact match and F1 of short answers, as the evaluation script of SQuAD defines them (arXiv:1606.05250, section 5)."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from jaxllm.evaluate.metrics import Statistic, mean_of

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def words_of(text: str, *, by_character: bool = False) -> list[str]:
    """The words that count: small letters, without punctuation and articles; or characters, without punctuation and spaces."""
    text = text.lower()
    if by_character:
        return [c for c in text if not c.isspace() and unicodedata.category(c)[0] not in "PS"]
    kept = "".join(c for c in text if c not in string.punctuation)
    return _ARTICLES.sub(" ", kept).split()


def overlap(wanted: Sequence[str], given: Sequence[str]) -> float:
    """F1 of the words that two answers share; of empty ones 1 where both are."""
    if not wanted or not given:
        return float(not wanted and not given)
    shared = sum((Counter(wanted) & Counter(given)).values())
    return 2 * shared / (len(wanted) + len(given))


def answer_scores(wanted: Sequence[Sequence[str]], given: Sequence[str], *, by_character: bool = False) -> dict[str, Statistic]:
    """Of each answer with the reference that suits it best; without references it must be empty.

    Args:
      by_character: for languages without spaces between words.
    """
    exact, shared = np.zeros(len(given)), np.zeros(len(given))
    for place, (references, answer) in enumerate(zip(wanted, given, strict=True)):
        own = words_of(answer, by_character=by_character)
        there = [words_of(each, by_character=by_character) for each in references]
        there = [each for each in there if each] or [[]]  # a reference of nothing but articles does not count
        exact[place] = max(own == each for each in there)
        shared[place] = max(overlap(each, own) for each in there)
    return {"exact_match": mean_of(exact), "f1": mean_of(shared)}
