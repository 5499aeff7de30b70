"""Reads SentencePiece models (`spiece.model`, `tokenizer.model`, `source.spm`) without the sentencepiece package.

The file is a protocol buffer, a string of numbered fields; the numbers are those of sentencepiece_model.proto.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxllm.data.vocabulary import NORMAL, Pieces

_ALGORITHMS = {1: "unigram", 2: "bpe"}


def read_sentencepiece(path: Path) -> Pieces:
    """The vocabulary in a file.

    Raises:
      ValueError: not such a file, or cut short; an algorithm other than unigram and BPE.
    """
    try:
        pieces: list[dict[int, Any]] = []
        trainer: dict[int, Any] = {}
        normalizer: dict[int, Any] = {}
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                pieces.append(dict(_fields(value)))
            elif number == 2:
                trainer = dict(_fields(value))
            elif number == 3:
                normalizer = dict(_fields(value))
        names = [piece[1].decode("utf-8") for piece in pieces]
        scores = [struct.unpack("<f", piece.get(2, b"\0\0\0\0"))[0] for piece in pieces]
        assert names
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, struct.error) as error:
        raise ValueError(f"{path} is not a SentencePiece model, or is damaged; copy or download it again") from error
    algorithm = _ALGORITHMS.get(trainer.get(3, 1))
    if algorithm is None or trainer.get(24, 0):
        what = "spaces after words" if algorithm else "an algorithm for whole words or characters"
        raise ValueError(f"a SentencePiece model must be of unigram or BPE pieces with spaces before words: {path} has {what}")
    return Pieces(
        pieces=names,
        scores=scores,
        kinds=[piece.get(3, NORMAL) for piece in pieces],
        algorithm=algorithm,  # pyright: ignore[reportArgumentType]
        unk_id=trainer.get(40, 0),
        prefix=bool(normalizer.get(3, 1)),
        collapse=bool(normalizer.get(4, 1)),
        charsmap=normalizer.get(2, b""),
    )


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message: numbers as they are, everything else as bytes."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        match key & 7:
            case 0:
                value, position = _varint(data, position)
            case 1 | 2 | 5 as kind:
                length, position = _varint(data, position) if kind == 2 else (8 if kind == 1 else 4, position)
                value, position = data[position : position + length], position + length
                if position > len(data):
                    raise ValueError("cut short")
            case _:
                raise ValueError("no such kind of field")
        yield key >> 3, value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where it ends."""
    value, shift = 0, 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position += 1
        if byte < 128:
            return value, position
        shift += 7
