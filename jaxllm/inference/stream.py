"""From a row's tokens to text that can be shown as it grows."""

from collections.abc import Callable, Sequence

CONTEXT_TOKENS = 8
"""Tokens before a piece that are decoded with it, at least: some tokenizers write a token differently at the start."""
INCOMPLETE = "\ufffd"


class TextStream:
    """The completion of one row: fed with token ids, it hands out text that later tokens cannot change.

    Held back are bytes that do not make a character yet, and an ending that may be the beginning of a stop text. Each
    call decodes the last tokens only, from a place between two characters, so a long text costs no more a token.

    Args:
      decode: the tokenizer's.
      prompt: ids before the completion.
      stop: texts that end the completion, which is cut before the first of them.
      eos_ids: the tokens that end the completion.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        prompt: Sequence[int],
        *,
        max_tokens: int,
        stop: tuple[str, ...] = (),
        eos_ids: Sequence[int] = (),
    ):
        self.text = ""
        self.finished = False
        self._decode = decode
        self._begin(list(prompt), "")
        self._left = max_tokens
        self._stop = stop
        self._eos_ids = frozenset(eos_ids)
        self._shown = 0

    def feed(self, ids: Sequence[int]) -> str:
        """Adds tokens and returns the text that is now certain and has not been returned before."""
        if self.finished:
            return ""
        ids = list(ids)
        end = next((place for place, token in enumerate(ids) if token in self._eos_ids), None)
        if end is not None:
            ids = ids[:end]
            self.finished = True
        ids = ids[: self._left]
        self._left -= len(ids)
        self.finished = self.finished or self._left == 0
        self._window += ids
        self.text = self._settled + self._decode(self._window)[self._known_characters :]
        if ends := [at for stop in self._stop if (at := self.text.find(stop, self._shown)) >= 0]:
            self.text = self.text[: min(ends)]
            self.finished = True
        certain = len(self.text) if self.finished else self._certain()
        new, self._shown = self.text[self._shown : certain], max(certain, self._shown)
        fresh = self._window[self._known_tokens :]
        if len(fresh) >= CONTEXT_TOKENS and not self.text.endswith(INCOMPLETE) and self._decode(fresh):
            self._begin(fresh, self.text)
        return new

    def _begin(self, known: list[int], settled: str) -> None:
        """From now on decodes `known` and what follows it; `settled` is the completion up to the end of `known`."""
        self._window = known
        self._known_tokens = len(known)
        self._known_characters = len(self._decode(known)) if known else 0
        self._settled = settled

    def _certain(self) -> int:
        text = self.text.rstrip(INCOMPLETE)
        held = [n for stop in self._stop for n in range(1, len(stop)) if text.endswith(stop[:n])]
        return len(text) - max(held, default=0)
