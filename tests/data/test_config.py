import pytest

from jaxllm.data import DataConfig, TokenizerConfig
from tests.data.conftest import unchecked


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "word"}, "must be one of bytes, characters, bpe"),
        ({"kind": "bpe"}, "needs tokenizer.vocab_size of at least 300.*got None"),
        ({"kind": "bytes", "vocab_size": 500}, "bpe, wordpiece, unigram only: got 500"),
        ({"kind": "pretrained"}, "needs tokenizer.path"),
        ({"kind": "bytes", "path": "x"}, "for tokenizer.kind='pretrained' only: got 'x'"),
    ],
)
def test_impossible_tokenizer_is_refused(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        unchecked(TokenizerConfig, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset": ""}, "must name a data set"),
        ({"seq_len": 0}, "seq_len must be 1 or more: got 0"),
        ({"packing": "best"}, "'concat' or 'fit': got 'best'"),
        ({"num_workers": -1}, "num_workers must be 0"),
        ({"prefetch": -1}, "prefetch must be 0"),
        ({"train_split": ""}, "train_split must not be empty"),
    ],
)
def test_impossible_data_config_is_refused(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        unchecked(DataConfig, **({"dataset": "tiny_shakespeare", "seq_len": 8} | fields))
