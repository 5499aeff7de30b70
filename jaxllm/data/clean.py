"""Cleaning: steps that change or drop documents, in one fixed order, each counting what it did.

The order is that of `STEPS`: characters and lines first, then the cheap tests, and the comparisons with all documents before
at the end, so that they see clean text.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from jaxllm.data.tfds_builder import Document

STEPS = (
    "control characters",
    "repeated lines",
    "empty",
    "too short",
    "language",
    "exact duplicates",
    "near duplicates",
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2060\ufeff\ufffd]")
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_SHINGLE_WORDS = 5
_LANGUAGE_CHARS = 2000
_PERMUTATIONS = 128


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """Which steps to take. Empty documents are always dropped."""

    control_characters: bool = False
    """Take out control and zero-width characters and U+FFFD; tabs and line ends stay."""
    repeated_lines: bool = False
    """Take out lines that stood before in the same document; blank lines stay."""
    min_chars: int = 1
    """Drop documents with fewer characters, white space at the ends not counted."""
    languages: tuple[str, ...] = ()
    """Keep documents in these languages only (ISO 639-1 codes, judged by py3langid); none means all."""
    exact_duplicates: bool = False
    """Drop documents whose text stood before."""
    near_duplicates: float | None = None
    """Drop documents whose set of 5-word shingles has at least this Jaccard similarity with that of one before (MinHash);
    None compares none. A Chinese or Japanese character counts as a word."""

    def __post_init__(self) -> None:
        if self.min_chars < 1:
            raise ValueError(f"min_chars must be 1 or more: got {self.min_chars}")
        if self.near_duplicates is not None and not 0 < self.near_duplicates <= 0.95:
            raise ValueError(f"near_duplicates must be above 0 and at most 0.95: got {self.near_duplicates}")
        for code in self.languages:
            if not re.fullmatch(r"[a-z]{2}", code):
                raise ValueError(f"a language is a code of two small letters, such as en or zh: got {code!r}")


@dataclass
class StepCount:
    """What one step did."""

    step: str
    documents_removed: int = 0
    documents_changed: int = 0
    characters_removed: int = 0


@dataclass
class CleanCounts:
    """What all steps did to the documents that were read."""

    documents_read: int
    documents_kept: int
    characters_kept: int
    steps: dict[str, StepCount]

    def table(self) -> list[tuple[str, ...]]:
        """Rows of text: the steps that were taken, in order."""
        head = ("step", "documents removed", "documents changed", "characters removed")
        rows = [
            (c.step, f"{c.documents_removed:,}", f"{c.documents_changed:,}", f"{c.characters_removed:,}")
            for c in self.steps.values()
        ]
        return [head, *rows]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"steps": [asdict(count) for count in self.steps.values()]}


class Cleaner:
    """Cleans documents one by one and counts. Comparisons with earlier documents hold across calls of `clean`."""

    def __init__(self, config: CleanConfig):
        self._steps = _steps(config)
        self.counts = CleanCounts(0, 0, 0, {name: StepCount(name) for name in self._steps})

    def clean(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The documents that stay. Of pairs and labelled texts the steps look at the first; the second must not be empty."""
        for document_id, text, *second in documents:
            self.counts.documents_read += 1
            cleaned = self._clean(text if all(other.strip() for other in second) else "")
            if cleaned is not None:
                self.counts.documents_kept += 1
                self.counts.characters_kept += len(cleaned)
                yield document_id, cleaned, *second

    def _clean(self, text: str) -> str | None:
        for name, step in self._steps.items():
            cleaned = step(text)
            count = self.counts.steps[name]
            count.characters_removed += len(text) - len(cleaned or "")
            if cleaned is None:
                count.documents_removed += 1
                return None
            count.documents_changed += cleaned != text
            text = cleaned
        return text


Step = Callable[[str], str | None]
"""The text as it goes on, or None where the document is dropped."""


def _steps(config: CleanConfig) -> dict[str, Step]:
    """The steps that were asked for, in the order of `STEPS`."""
    wanted: dict[str, Step | None] = {
        "control characters": _without_control if config.control_characters else None,
        "repeated lines": _without_repeated_lines if config.repeated_lines else None,
        "empty": lambda text: text if text.strip() else None,
        "too short": (lambda t: t if len(t.strip()) >= config.min_chars else None) if config.min_chars > 1 else None,
        "language": _in_languages(config.languages) if config.languages else None,
        "exact duplicates": _not_seen() if config.exact_duplicates else None,
        "near duplicates": _not_similar(config.near_duplicates) if config.near_duplicates is not None else None,
    }
    return {name: step for name in STEPS if (step := wanted[name])}


def _without_control(text: str) -> str:
    return _CONTROL.sub("", text)


def _without_repeated_lines(text: str) -> str:
    seen: set[str] = set()
    lines = []
    for line in text.split("\n"):
        key = line.strip()
        if not key or key not in seen:
            lines.append(line)
            seen.add(key)
    return "\n".join(lines)


def _in_languages(languages: tuple[str, ...]) -> Step:
    try:
        import py3langid
    except ImportError as error:
        raise _missing("language", "py3langid") from error
    known = {code for code, _ in py3langid.rank("text")}
    if unknown := set(languages) - known:
        raise ValueError(f"languages must be among {', '.join(sorted(known))}: got {', '.join(sorted(unknown))}")
    return lambda text: text if py3langid.classify(text[:_LANGUAGE_CHARS])[0] in languages else None


def _not_seen() -> Step:
    seen: set[bytes] = set()

    def step(text: str) -> str | None:
        key = hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if key in seen:
            return None
        seen.add(key)
        return text

    return step


def _not_similar(threshold: float) -> Step:
    try:
        import datasketch
    except ImportError as error:
        raise _missing("near duplicates", "datasketch") from error
    index: Any = datasketch.MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)
    kept: list[Any] = []

    def step(text: str) -> str | None:
        sketch = datasketch.MinHash(num_perm=_PERMUTATIONS)
        sketch.update_batch(sorted(_shingles(text)))
        if any(sketch.jaccard(kept[int(number)]) >= threshold for number in index.query(sketch)):
            return None
        index.insert(len(kept), sketch)
        kept.append(sketch)
        return text

    return step


def _shingles(text: str) -> set[bytes]:
    words = _WORD.findall(text.lower())
    count = max(1, len(words) - _SHINGLE_WORDS + 1)
    return {" ".join(words[i : i + _SHINGLE_WORDS]).encode("utf-8", "surrogatepass") for i in range(count)}


def _missing(step: str, package: str) -> ValueError:
    return ValueError(f"the step {step!r} needs the package {package}: it is not installed; pip install 'jaxllm[clean]'")
