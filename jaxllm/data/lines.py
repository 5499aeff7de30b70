"""The lines of text files: decompressed, decoded, and a wrong byte named by its place."""

import codecs
import gzip
from collections.abc import Iterator
from pathlib import Path

_BLOCK_BYTES = 1 << 20


def check_encoding(encoding: str) -> None:
    """Refuse names that Python does not know."""
    for name in encoding.split(","):
        try:
            codecs.lookup(name)
        except LookupError as error:
            raise ValueError(
                f"encoding must be one that Python knows, such as utf-8, latin-1 or gb18030: got {name!r}"
            ) from error


def read_lines(path: Path, encoding: str) -> Iterator[str]:
    """The lines of a file without their ends.

    Args:
      encoding: one, or several with commas between: the first that fits the whole file.
    """
    rest = ""
    for text in _decoded(path, _fitting(path, encoding)):
        parts = (rest + text).split("\n")
        rest = parts.pop()
        yield from (part.removesuffix("\r") for part in parts)
    yield rest


def _fitting(path: Path, encoding: str) -> str:
    *first, last = encoding.split(",")
    for name in first:
        try:
            for _ in _decoded(path, name):
                pass
        except _WrongByte:
            continue
        return name
    return last


class _WrongByte(ValueError):
    pass


def _decoded(path: Path, encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        while True:
            try:
                block = file.read(_BLOCK_BYTES)
            except (gzip.BadGzipFile, EOFError) as error:
                raise ValueError(f"{path} is not a gzip file that can be read: {error}") from error
            if offset == 0 and block.startswith(codecs.BOM_UTF8) and codecs.lookup(encoding).name == "utf-8":
                block, offset = block[3:], 3
            waiting = len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                place = offset - waiting + error.start
                wrong = error.object[error.start]
                raise _WrongByte(
                    f"{path} is not {encoding}: byte {place} is 0x{wrong:02x}; name the file's encoding with --encoding, "
                    "for example latin-1 or gb18030"
                ) from error
            offset += len(block)
            yield text
            if not block:
                return
