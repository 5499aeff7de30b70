"""Text and images to batches: TFDS data sets, tokenizers, and rows found by one global position.

    data = open_data(DataConfig(dataset="tiny_shakespeare", seq_len=64), seed=0)
    for batch in train_batches(data.train, batch_size=12):  # tokens, targets, loss_weights, positions, segment_ids
        ...

In the order in which text passes through: `readers` and `clean` take documents from files, `build` writes them as a TFDS data
set, `source` finds and reads one, `tokenizer` and `subword` make ids of text, `tokens` keeps the ids on disk, `packing` says
which token stands in which row, `rows` shuffles the rows (`pairs` those of two texts), `pipeline` makes batches of them.
Images go by `build_images` and `images`; the examples of a task by `task_files`, which reads the rows of `table_files` and
`task_formats` and makes examples of them (`task_kinds`, `task_rows`, `chat_files`), `build_task` and `task_data`.
"""

from jaxllm.data.config import DataConfig, ImageDataConfig, TaskDataConfig, TokenizerConfig
from jaxllm.data.images import ImageData, open_images
from jaxllm.data.opening import Data, open_data
from jaxllm.data.pipeline import eval_batches, train_batches
from jaxllm.data.rows import Batch, Rows, RowSource
from jaxllm.data.source import TextSet, TextSplit, find_text_set
from jaxllm.data.task_data import Records, TaskData, open_task_data
from jaxllm.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

__all__ = [
    "Batch",
    "Data",
    "DataConfig",
    "ImageData",
    "ImageDataConfig",
    "Records",
    "RowSource",
    "Rows",
    "TaskData",
    "TaskDataConfig",
    "TextSet",
    "TextSplit",
    "Tokenizer",
    "TokenizerConfig",
    "eval_batches",
    "find_text_set",
    "load_tokenizer",
    "open_data",
    "open_images",
    "open_task_data",
    "train_batches",
    "train_tokenizer",
]
