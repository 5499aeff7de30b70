"""Rows of a text to read and a text to write, each as wide as its own longest one."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from jaxllm.data.example_rows import WIDTH_UNIT, ExampleRows, few_sizes
from jaxllm.data.rows import Batch, Share

DECODER = "decoder_"
"""Names of the arrays of the text to write begin with this."""


@dataclass(frozen=True)
class TextRows(ExampleRows):
    """Of items with a text for the decoder, one a row; other items as they are in `ExampleRows`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    def for_evaluation(self) -> "TextRows":
        return dataclasses.replace(self, seed=None)

    def batch(self, positions: Int64[np.ndarray, " N"], share: Share) -> Batch:
        batch = super().batch(positions, share)
        if DECODER not in self.table.texts:
            return batch
        numbers = self._numbers(np.asarray(positions))
        width = {text: int(self.table.lengths(text)[numbers].max()) for text in self.table.texts}

        def cut(name: str, array: np.ndarray) -> np.ndarray:
            longest = width[DECODER if name.startswith(DECODER) else ""]
            return array if array.ndim < 2 else array[:, : min(few_sizes(longest, WIDTH_UNIT), array.shape[1])]

        return {name: cut(name, array) for name, array in batch.items()}
