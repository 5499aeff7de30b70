"""The tokens of a split, computed once and kept on disk: one flat array, and where each document begins in it.

The folder is named by a hash of the split's files and the tokenizer, and appears whole or not at all, so any number of
processes may ask for it at once.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import grain
import numpy as np
from jaxtyping import Int64, UInt

from jaxllm.data.source import TextSplit
from jaxllm.data.tokenizer import Tokenizer
from jaxllm.data.whole import write_whole
from jaxllm.data.workers import in_workers
from jaxllm.distributed import beat
from jaxllm.hardware import cache_dir

_LAYOUT = 2
_CHUNK_DOCUMENTS = 256
_SAY_FROM = 100_000


@dataclass(frozen=True)
class TokenTable:
    """The tokens of a split on disk, mapped into memory when first used."""

    folder: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenTable, (self.folder,)

    @cached_property
    def tokens(self) -> UInt[np.ndarray, " tokens"]:
        """All documents end to end, in the order of the split."""
        return np.asarray(np.load(self.folder / "tokens.npy", mmap_mode="r"))

    @cached_property
    def offsets(self) -> Int64[np.ndarray, " ends"]:
        """Document d is `tokens[offsets[d] : offsets[d + 1]]`."""
        return np.asarray(np.load(self.folder / "offsets.npy", mmap_mode="r"))

    @cached_property
    def fingerprint(self) -> str:
        """The same for two tables exactly when they hold the same tokens in the same documents."""
        return json.loads((self.folder / "meta.json").read_text("utf-8"))["fingerprint"]

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_documents(self) -> int:
        """Documents with at least one token."""
        return int(np.count_nonzero(np.diff(self.offsets)))


def tokenize_split(split: TextSplit, tokenizer: Tokenizer, *, num_workers: int = 0) -> TokenTable:
    """The tokens of a split, from the cache or computed now; each document ends with the tokenizer's end mark if it has one."""
    name = hashlib.sha256(f"{_LAYOUT} {split.fingerprint} {tokenizer.fingerprint}".encode()).hexdigest()[:24]
    folder = cache_dir() / "tokens" / name
    if folder.is_dir():
        return TokenTable(folder)
    write_whole(folder, lambda work: _write(split, tokenizer, work, num_workers))
    return TokenTable(folder)


@dataclass(frozen=True)
class _Chunks:
    """Element i: the tokens of documents 256 i to 256 i + 255, end to end, and the length of each."""

    split: TextSplit
    tokenizer: Tokenizer

    def __len__(self) -> int:
        return -(-len(self.split) // _CHUNK_DOCUMENTS)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        start = index * _CHUNK_DOCUMENTS
        texts = self.split.texts(start, min(start + _CHUNK_DOCUMENTS, len(self.split)))
        documents = self.tokenizer.encode_batch(texts)
        if self.tokenizer.eos_id is not None:
            end = np.array([self.tokenizer.eos_id], np.int32)
            documents = [np.concatenate([ids, end]) for ids in documents]
        return np.concatenate(documents).astype(_dtype(self.tokenizer)), np.array([len(ids) for ids in documents], np.int64)


def _write(split: TextSplit, tokenizer: Tokenizer, folder: Path, num_workers: int) -> None:
    if len(split) >= _SAY_FROM:
        print(f"tokenizing the {len(split):,} documents of {split.split}, once for all runs", file=sys.stderr, flush=True)
    lengths = [np.zeros(1, np.int64)]
    digest = hashlib.sha256()
    with open(folder / "tokens.npy", "wb") as file:
        count = 0
        _write_header(file, count, _dtype(tokenizer))
        start = file.tell()
        for tokens, chunk_lengths in _in_order(_Chunks(split, tokenizer), num_workers):
            beat(0, "tokenizing the data", long=True)
            file.write(tokens.tobytes())
            digest.update(tokens.astype("<u4").tobytes())  # of the numbers, whatever type holds them
            lengths.append(chunk_lengths)
            count += len(tokens)
        file.seek(0)
        _write_header(file, count, _dtype(tokenizer))
        assert file.tell() == start, "NumPy leaves room in the header for the array to grow"
    offsets = np.cumsum(np.concatenate(lengths))
    np.save(folder / "offsets.npy", offsets)
    digest.update(offsets.astype("<i8").tobytes())
    meta = {
        "data_set": str(split.folder),
        "split": split.split,
        "tokenizer": tokenizer.fingerprint,
        "documents": len(split),
        "tokens": count,
        "fingerprint": digest.hexdigest(),
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1), "utf-8")


def _in_order(chunks: _Chunks, num_workers: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if num_workers == 0 or len(chunks) < 2 * num_workers:
        yield from (chunks[i] for i in range(len(chunks)))
        return
    dataset = grain.MapDataset.source(chunks).to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    yield from in_workers(dataset, num_workers, prefetch=1)


def _dtype(tokenizer: Tokenizer) -> type[np.unsignedinteger]:
    return np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32


def _write_header(file: BinaryIO, count: int, dtype: type[np.unsignedinteger]) -> None:
    description = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, description)
