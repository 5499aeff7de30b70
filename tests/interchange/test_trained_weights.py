"""Small trained models in odd layouts give what is published of them: JAXLLM_SHARED_DATA names the folder of their files.

JAXLLM_SHARED_DATA=... pytest -m slow tests/interchange/test_trained_weights.py
"""

import os
from pathlib import Path

import pytest

from tests.interchange.trained_facts import SEQUENCES, WORDS, sorter_facts, story_facts, transliterator_facts

DATA = os.environ.get("JAXLLM_SHARED_DATA")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DATA is None, reason="JAXLLM_SHARED_DATA names no folder with pretrained/ and tinystories_sample/"),
]


@pytest.fixture(scope="module")
def data():
    assert DATA is not None
    return Path(DATA)


def test_a_llama_with_interleaved_rotary_pairs(data):
    facts = story_facts(data)
    assert facts["greedy_text_is_the_published_one"]
    assert facts["loss_nats_a_token"] == pytest.approx(1.32, abs=0.006)


def test_a_gpt_that_sorts(data):
    facts = sorter_facts(data)
    assert facts["largest_logit_difference"] < 1e-5
    assert facts["largest_inner_difference"] < 2e-6
    assert facts["sequences_sorted"] == SEQUENCES


def test_an_encoder_decoder_that_transliterates(data):
    found = {word: (got["text"], round(got["log_probability"], 2)) for word, got in transliterator_facts(data).items()}
    assert found == WORDS
