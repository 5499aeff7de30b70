"""What a run reads: the data set, its splits, the tokenizer, and how documents become rows."""

from dataclasses import dataclass
from typing import Literal

TokenizerKind = Literal["bytes", "characters", "bpe", "wordpiece", "unigram", "pretrained"]
TRAINED_KINDS = ("bpe", "wordpiece", "unigram")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How text becomes token ids."""

    kind: TokenizerKind = "bytes"
    """bytes: UTF-8 bytes and an end mark, 257 entries. characters: the distinct characters of the data set. bpe, wordpiece,
    unigram: trained on the training split. pretrained: a published folder with a `tokenizer.json`."""
    vocab_size: int | None = None
    """Entries to train, for bpe, wordpiece and unigram; None for the others, which have the size they have."""
    path: str | None = None
    """The folder with the `tokenizer.json`, for pretrained; None for the others."""

    def __post_init__(self) -> None:
        kinds = TokenizerKind.__args__
        if self.kind not in kinds:
            raise ValueError(f"tokenizer.kind must be one of {', '.join(kinds)}: got {self.kind!r}")
        if self.kind in TRAINED_KINDS and (self.vocab_size is None or self.vocab_size < 300):
            raise ValueError(
                f"tokenizer.kind={self.kind!r} needs tokenizer.vocab_size of at least 300 "
                f"(256 bytes and the special tokens come first): got {self.vocab_size}"
            )
        if self.kind not in TRAINED_KINDS and self.vocab_size is not None:
            raise ValueError(
                f"tokenizer.vocab_size can be chosen for {', '.join(TRAINED_KINDS)} only: got {self.vocab_size} with "
                f"tokenizer.kind={self.kind!r}; leave it out"
            )
        if self.kind == "pretrained" and not self.path:
            raise ValueError("tokenizer.kind='pretrained' needs tokenizer.path, a folder with a tokenizer.json: got none")
        if self.kind != "pretrained" and self.path is not None:
            raise ValueError(
                f"tokenizer.path is for tokenizer.kind='pretrained' only: got {self.path!r} with kind {self.kind!r}"
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data set of a run and how its documents become rows of `seq_len` tokens."""

    dataset: str
    """A name built by `jaxllm data build`, the folder of a prepared TFDS set, a TFDS name such as "openwebtext:1.0.0", or
    the "tiny_shakespeare" that ships with the package."""
    seq_len: int
    """Tokens in a row; each has the next token as its target."""
    data_dir: str | None = None
    """Folder of the named data sets, may be in a bucket (gs://...); None means $JAXLLM_DATA, else `datasets` in the cache."""
    text_feature: str = "text"
    """The feature of the data set that holds the text; of pairs the first text, which is the encoder's."""
    target_feature: str | None = None
    """The feature that holds the second text of pairs, which is the decoder's. By default there are no pairs."""
    train_split: str = "train"
    """Split to train on; TFDS slices such as "train[:99%]" work here and below."""
    validation_split: str | None = "validation"
    """Split for the evaluations during training; None when there is none."""
    test_split: str | None = "test"
    """Split for the final figure; None when there is none. "test" is left out where the set has no such split; any other name
    must be there."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """How text becomes token ids."""
    packing: Literal["concat", "fit"] = "concat"
    """concat: documents stand end to end and are cut every `seq_len` tokens. fit: documents are kept whole where they fit,
    several in a row, with padding at its end."""
    cross_document_attention: bool = False
    """Let tokens attend to earlier documents of their row (positions then run through). Targets never cross documents."""
    num_workers: int = 0
    """Worker processes that prepare batches; 0 means a thread of this process. The stream is the same for any number."""
    prefetch: int = 2
    """Batches prepared ahead, by each worker; 0 prepares each batch when it is asked for."""

    def __post_init__(self) -> None:
        if not self.dataset:
            raise ValueError("dataset must name a data set: got an empty string; `jaxllm data show` lists those there are")
        if self.seq_len < 1:
            raise ValueError(f"seq_len must be 1 or more: got {self.seq_len}")
        if self.packing not in ("concat", "fit"):
            raise ValueError(f"packing must be 'concat' or 'fit': got {self.packing!r}")
        if self.num_workers < 0:
            raise ValueError(f"num_workers must be 0 (no worker processes) or more: got {self.num_workers}")
        if self.prefetch < 0:
            raise ValueError(f"prefetch must be 0 (prepare on demand) or more: got {self.prefetch}")
        for name in ("train_split", "text_feature"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty")
        if self.target_feature == self.text_feature:
            raise ValueError(f"target_feature must be another feature than text_feature: got {self.text_feature!r} for both")


@dataclass(frozen=True, kw_only=True)
class ImageDataConfig:
    """The labelled images of a run, all brought to one size."""

    dataset: str
    """A name built by `jaxllm data build --images`, the folder of a prepared TFDS set, or a TFDS name such as "cifar10"."""
    image_size: int
    """Height and width of an image in pixels; others are scaled by their shorter side and cut in the middle."""
    data_dir: str | None = None
    """Folder of the named data sets, may be in a bucket (gs://...); None means $JAXLLM_DATA, else `datasets` in the cache."""
    image_feature: str = "image"
    """The feature of the data set that holds the image."""
    label_feature: str = "label"
    """The feature that holds the class."""
    train_split: str = "train"
    """Split to train on; TFDS slices such as "train[:99%]" work here and below."""
    validation_split: str | None = "validation"
    """Split for the evaluations during training; None when there is none."""
    test_split: str | None = "test"
    """Split for the final figure; None when there is none. "test" is left out where the set has no such split."""
    num_workers: int = 0
    """Worker processes that prepare batches; 0 means a thread of this process. The stream is the same for any number."""
    prefetch: int = 2
    """Batches prepared ahead, by each worker; 0 prepares each batch when it is asked for."""

    def __post_init__(self) -> None:
        if not self.dataset:
            raise ValueError("dataset must name a data set: got an empty string; `jaxllm data show` lists those there are")
        if self.image_size < 1:
            raise ValueError(f"image_size must be 1 or more: got {self.image_size}")
        for name in ("num_workers", "prefetch"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more: got {getattr(self, name)}")
        for name in ("train_split", "image_feature", "label_feature"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty")


@dataclass(frozen=True, kw_only=True)
class TaskDataConfig:
    """The examples of a task: those of a classifier, of a tagger, of questions, of a conversation."""

    dataset: str
    """A name built by `jaxllm data build --task`, the folder of a prepared TFDS set, or a TFDS name such as "glue/sst2"."""
    seq_len: int
    """The most tokens of an example, special ones counted."""
    data_dir: str | None = None
    """Folder of the named data sets, may be in a bucket (gs://...); None means $JAXLLM_DATA, else `datasets` in the cache."""
    text_feature: str = "text"
    """The feature of the data set that holds the text."""
    pair_feature: str | None = None
    """The feature that holds the second text of a pair; by default there are no pairs."""
    label_feature: str = "label"
    """The feature that holds the class, the classes, the tags or the score."""
    train_split: str = "train"
    """Split to train on; TFDS slices such as "train[:99%]" work here and below."""
    validation_split: str | None = "validation"
    """Split for the evaluations during training; None when there is none."""
    test_split: str | None = "test"
    """Split for the final figure; None when there is none. "test" is left out where the set has no such split."""
    too_long: Literal["truncate", "drop", "refuse"] = "truncate"
    """What becomes of an example with more tokens: truncate cuts it, drop leaves it out of training; both are counted. refuse
    stops with its place."""
    examples: int | None = None
    """Train on so many examples of the training split, as many of each class where there are classes; None means all."""
    packing: bool = True
    """Put several examples in a row where the task allows it."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """How text becomes token ids, where no model brings its own."""
    num_workers: int = 0
    """Worker processes that prepare batches; 0 means a thread of this process. The stream is the same for any number."""
    prefetch: int = 2
    """Batches prepared ahead, by each worker; 0 prepares each batch when it is asked for."""

    def __post_init__(self) -> None:
        if not self.dataset:
            raise ValueError("dataset must name a data set: got an empty string; `jaxllm data show` lists those there are")
        if self.too_long not in ("truncate", "drop", "refuse"):
            raise ValueError(f"too_long must be truncate, drop or refuse: got {self.too_long!r}")
        for name, least in (("seq_len", 1), ("examples", 1), ("num_workers", 0), ("prefetch", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be {least} or more: got {value}")
        for name in ("train_split", "text_feature", "label_feature"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty")
        if self.pair_feature == self.text_feature:
            raise ValueError(f"pair_feature must be another feature than text_feature: got {self.text_feature!r} for both")
