"""From a row's tokens to text that can be shown as it grows."""

from collections.abc import Callable, Sequence

CONTEXT_TOKENS = 8
INCOMPLETE = "\ufffd"


class TextStream:
    """The completion of one row: fed with token ids, it hands out text that later tokens cannot change.

    Held back are bytes that do not make a character yet, and an ending that may be the beginning of a stop text.

    Args:
      decode: the tokenizer's.
      prompt: ids before the completion. Some tokenizers write a token differently at the start of a text.
      stop: texts that end the completion, which is cut before the first of them.
      eos_id: the token that ends the completion, if there is one.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        prompt: Sequence[int],
        *,
        max_tokens: int,
        stop: tuple[str, ...] = (),
        eos_id: int | None = None,
    ):
        self.text = ""
        self.finished = False
        self._decode = decode
        self._context = list(prompt[-CONTEXT_TOKENS:])
        self._context_len = len(decode(self._context)) if self._context else 0
        self._ids: list[int] = []
        self._max_tokens = max_tokens
        self._stop = stop
        self._eos_id = eos_id
        self._shown = 0

    def feed(self, ids: Sequence[int]) -> str:
        """Adds tokens and returns the text that is now certain and has not been returned before."""
        if self.finished:
            return ""
        ids = list(ids)
        if self._eos_id in ids:
            ids = ids[: ids.index(self._eos_id)]
            self.finished = True
        self._ids = (self._ids + ids)[: self._max_tokens]
        self.finished = self.finished or len(self._ids) == self._max_tokens
        self.text = self._decode(self._context + self._ids)[self._context_len :]
        if ends := [at for stop in self._stop if (at := self.text.find(stop)) >= 0]:
            self.text = self.text[: min(ends)]
            self.finished = True
        certain = len(self.text) if self.finished else self._certain()
        new, self._shown = self.text[self._shown : certain], max(certain, self._shown)
        return new

    def _certain(self) -> int:
        text = self.text.rstrip(INCOMPLETE)
        held = [n for stop in self._stop for n in range(1, len(stop)) if text.endswith(stop[:n])]
        return len(text) - max(held, default=0)
