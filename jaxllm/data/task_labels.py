"""The classes of a task: their names, in the order of their numbers, and what a file may write for them."""

import re
from collections.abc import Sequence
from typing import Any

from jaxllm.data.table_files import WrongRow

_SHOWN = 20


class Labels:
    """Grows with the training files unless given; then any other label is refused."""

    def __init__(self, given: Sequence[str] = ()):
        """`given`: names, or `VALUE=NAME` where the files write VALUE for a class."""
        pairs = [each.partition("=") for each in given]
        self._names = {name or value: None for value, _, name in pairs}
        self._written = {value: name for value, _, name in pairs if name}
        self._closed = bool(given)
        if len(self._names) != len(given):
            raise ValueError(f"labels must have a name each: got {', '.join(given)}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def close(self) -> None:
        """All training files are read: numbers are put in their order, other names by letter."""
        if not self._closed:
            self._names = dict.fromkeys(label_names(set(self._names)))
            self._closed = True

    def name(self, value: Any) -> str:
        """The name of the class that a file writes as `value`."""
        if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
            value = str(int(value))
        if not isinstance(value, str | None):
            raise WrongRow(f"expected a label, a name or a whole number: got {str(value)[:60]}")
        written = (value or "").strip()
        written = self._written.get(written, written)
        if not written:
            raise WrongRow("expected a label: got none")
        if written not in self._names:
            if self._closed:
                known = ", ".join(self.names[:_SHOWN]) + (", ..." if len(self._names) > _SHOWN else "")
                raise WrongRow(f"expected one of the labels {known}: got {written!r}; name all of them with --labels")
            self._names[written] = None
        return written


def label_names(labels: set[str]) -> tuple[str, ...]:
    """In the order of their numbers: numbers by size, others by letter."""
    return tuple(sorted(labels, key=lambda label: (0, int(label), "") if re.fullmatch("-?[0-9]+", label) else (1, 0, label)))
