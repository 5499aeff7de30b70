import random

import pytest

from jaxllm.inference import TextStream


def decode_bytes(ids):
    return bytes(ids).decode("utf-8", "replace")


def decode_words(ids):
    """Like the tokenizers whose first word has no space before it."""
    return " ".join(f"w{i}" for i in ids)


def pieces(stream, ids, size=1):
    return [stream.feed(ids[i : i + size]) for i in range(0, len(ids), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("stop", [(), ("nope",), ("stop",), ("é!", "to the"), ("!",)])
def test_pieces_make_the_text_up_to_the_first_stop(size, stop):
    text = "go on é! to the stop, stop!"
    stream = TextStream(decode_bytes, [], max_tokens=100, stop=stop)
    shown = "".join(pieces(stream, list(text.encode()), size))
    expected = text[: min((text.find(s) for s in stop if s in text), default=len(text))]
    assert stream.text == expected
    assert stream.finished == (expected != text)
    assert expected.startswith(shown) and len(expected) - len(shown) <= 3  # "nop" may still become "nope"


def test_a_character_is_shown_once_it_is_whole():
    stream = TextStream(decode_bytes, [], max_tokens=100)
    assert pieces(stream, list("a€b".encode())) == ["a", "", "", "€", "b"]


def test_bytes_that_never_make_a_character_come_out_at_the_end():
    stream = TextStream(decode_bytes, [], max_tokens=2)
    assert pieces(stream, [0xE2, 0x82]) == ["", "\ufffd"]


def test_a_stop_text_that_does_not_come_is_released():
    stream = TextStream(decode_bytes, [], max_tokens=100, stop=("xyz",))
    assert pieces(stream, list(b"axyb")) == ["a", "", "", "xyb"]


def test_the_space_before_the_first_word_is_kept():
    stream = TextStream(decode_words, [1, 2], max_tokens=100)
    assert pieces(stream, [3, 4]) == [" w3", " w4"]


@pytest.mark.parametrize("size", [1, 4])
def test_the_end_token_and_the_limit_end_it(size):
    stream = TextStream(decode_bytes, [], max_tokens=100, eos_ids=[0])
    assert "".join(pieces(stream, [97, 98, 0, 99], size)) == "ab" and stream.finished
    stream = TextStream(decode_bytes, [], max_tokens=3, eos_ids=[0])
    assert "".join(pieces(stream, [97, 98, 99, 100], size)) == "abc" and stream.finished


@pytest.mark.parametrize("size", [1, 5, 64])
@pytest.mark.parametrize("prompt", [[], [1, 2], list(range(30))])
def test_a_long_text_of_words_is_the_decoding_of_all_of_it(size, prompt):
    ids = list(range(200))
    stream = TextStream(decode_words, prompt, max_tokens=200)
    expected = decode_words(prompt + ids)[len(decode_words(prompt)) :]
    assert "".join(pieces(stream, ids, size)) == stream.text == expected


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("decode", [decode_bytes, "runs"])
def test_a_long_text_of_many_byte_characters_is_the_decoding_of_all_of_it(size, decode):
    """Also where, as in some published tokenizers, one incomplete character makes a whole run of bytes unreadable."""

    def decode_runs(ids):
        try:
            return bytes(ids).decode()
        except UnicodeDecodeError:
            return "\ufffd" * len(ids)

    text = "".join(random.Random(0).choices("a é€語🙂", k=300))
    ids = list(text.encode())
    prompt = list("前の文".encode())
    stream = TextStream(decode_runs if decode == "runs" else decode, prompt, max_tokens=len(ids))
    assert "".join(pieces(stream, ids, size)) == stream.text == text


def test_special_tokens_without_text_leave_the_next_space_alone():
    decode = lambda ids: " ".join(f"w{i}" for i in ids if i)  # noqa: E731
    ids = [1] * 10 + [0] * 30 + [2] * 3
    stream = TextStream(decode, [5], max_tokens=100)
    assert "".join(pieces(stream, ids)) == " w1" * 10 + " w2" * 3


def test_a_token_late_in_the_text_costs_no_more_than_an_early_one():
    decoded = []

    def decode(ids):
        decoded.append(len(ids))
        return decode_bytes(ids)

    stream = TextStream(decode, list(b"x" * 500), max_tokens=10_000)
    pieces(stream, list(b"text " * 400))
    assert max(decoded[20:]) <= 20 and sum(decoded[20:]) <= 2000 * 25
