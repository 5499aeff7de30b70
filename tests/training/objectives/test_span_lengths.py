"""How much text fits into a row, for every kind of noise that the config accepts."""

import pytest

from jaxllm.training.objectives import SpanCorruption


@pytest.mark.parametrize("seq_len", [8, 9, 64, 128])
@pytest.mark.parametrize("fields", [{}, {"mean_span": 1.0}, {"noise": 0.02}, {"noise": 0.5}])
def test_the_text_is_the_longest_whose_rest_fits(seq_len, fields):
    """Text less what is taken out, a mark for each span and the end: that is what the encoder reads."""
    objective = SpanCorruption(**fields)
    text, target = objective.lengths(seq_len)
    assert objective._read(text) <= seq_len < objective._read(text + 1)
    assert text >= 4 and target >= 3
