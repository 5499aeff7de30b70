"""How do published weights come in and go out?

`open_published(path_or_name)` finds the family, the config and the tensors, still on disk; `load_params` streams them into
their shardings; `write_folder` writes a folder that Hugging Face transformers loads. A family is one file in `families`.
"""

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.export import published_config, write_folder
from jaxllm.interchange.family import Family
from jaxllm.interchange.generation import GenerationDefaults
from jaxllm.interchange.hub import resolve
from jaxllm.interchange.keymap import Tensor
from jaxllm.interchange.open import Published, find_family, is_gguf, known_families, open_published
from jaxllm.interchange.safetensors_folder import SafetensorsFolder, open_tensors
from jaxllm.interchange.sentence import SentenceConfig, read_sentence_config
from jaxllm.interchange.stream import TensorSource, load_params, stored_dtypes
from jaxllm.interchange.vocabulary import resize_vocabulary

__all__ = [
    "ConfigReader",
    "Family",
    "GenerationDefaults",
    "Published",
    "SafetensorsFolder",
    "SentenceConfig",
    "Tensor",
    "TensorSource",
    "find_family",
    "is_gguf",
    "known_families",
    "load_params",
    "open_published",
    "open_tensors",
    "published_config",
    "read_sentence_config",
    "resize_vocabulary",
    "resolve",
    "stored_dtypes",
    "write_folder",
]
