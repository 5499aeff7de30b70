import pytest

from jaxllm.hardware.counted import counted


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "document", "1 document"),
        (0, "document", "0 documents"),
        (2000, "document", "2,000 documents"),
        (1, "process", "1 process"),
        (3, "process", "3 processes"),
    ],
)
def test_a_number_with_its_noun(count, noun, text):
    assert counted(count, noun) == text
