"""What a folder or a name holds: its family, our config, and its tensors, still on disk."""

import dataclasses
import difflib
import pkgutil
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from jaxllm.data import Tokenizer, load_tokenizer
from jaxllm.data.image_input import ImageInput
from jaxllm.interchange import families
from jaxllm.interchange.config_reader import ConfigReader, read_config_file
from jaxllm.interchange.family import Family
from jaxllm.interchange.generation import GenerationDefaults, generation_defaults, read_told, start_id
from jaxllm.interchange.gguf_config import read_gguf_config, read_gguf_pooling
from jaxllm.interchange.gguf_file import GgufFile, open_gguf
from jaxllm.interchange.gguf_model import published_tensors
from jaxllm.interchange.gguf_tokenizer import read_gguf_tokenizer
from jaxllm.interchange.hub import resolve
from jaxllm.interchange.preprocessor import read_image_input
from jaxllm.interchange.safetensors_folder import open_tensors
from jaxllm.interchange.sentence import SentenceConfig, read_sentence_config
from jaxllm.interchange.stream import TensorSource
from jaxllm.models import EncoderDecoderConfig, VisionConfig


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published model whose weights are not read yet."""

    source: Path
    """The folder or GGUF file that it is in; its tokenizer is there, too."""
    family: Family
    """How its names and fields are ours."""
    config: Any
    """Our config."""
    tensors: TensorSource
    """Its weights, to be read a slice at a time."""
    generation: GenerationDefaults
    """How its texts end."""
    gguf: GgufFile | None = None
    """The GGUF file, opened, where it is in one."""

    def load_tokenizer(self) -> Tokenizer:
        """Its tokenizer.

        Raises:
          FileNotFoundError: there is none.
          ValueError: it is damaged or not supported.
        """
        return load_tokenizer(self.source) if self.gguf is None else read_gguf_tokenizer(self.gguf)

    def read_sentence(self) -> SentenceConfig | None:
        """How it makes one vector of a text, where that is published with it."""
        return read_sentence_config(self.source) if self.gguf is None else read_gguf_pooling(self.gguf)

    def read_image_input(self) -> ImageInput | None:
        """How pictures become its input, where that is published with it."""
        return read_image_input(self.source, self.config) if isinstance(self.config, VisionConfig) else None


@cache
def known_families() -> dict[str, Family]:
    """Every family in `families`, by the classes it stands for."""
    found: dict[str, Family] = {}
    for module in pkgutil.iter_modules(families.__path__, f"{families.__name__}."):
        for family in getattr(import_module(module.name), "FAMILIES", ()):
            for architecture in family.architectures:
                assert architecture not in found, f"two families for {architecture}"
                found[architecture] = family
    return found


def find_family(architecture: str, source: str = "config.json") -> Family:
    """The family of a class that config.json names.

    Raises:
      ValueError: not a known class; those that are known are listed, nearest first.
    """
    known = known_families()
    if architecture not in known:
        nearest = difflib.get_close_matches(architecture, known, n=len(known), cutoff=0.0)
        raise ValueError(
            f"{architecture} is not an architecture that is known here: got it from {source}; known, nearest first: "
            f"{', '.join(nearest)}"
        )
    return known[architecture]


def open_published(name_or_path: str | Path) -> Published:
    """A published model: from a folder, a GGUF file, or by its name on the hub.

    Raises:
      FileNotFoundError: no such folder, or files missing in it.
      ValueError: an unknown architecture, a config that is incomplete or not supported, or damaged weights.
    """
    if is_gguf(name_or_path):
        file = open_gguf(name_or_path)
        reader, source = ConfigReader(read_gguf_config(file), str(file.path)), file.path
    else:
        file, source = None, resolve(name_or_path)
        reader = read_config_file(source)
    family = find_family(reader.architecture)
    config = read_config(family, reader)
    tensors = open_tensors(source) if file is None else published_tensors(file)
    if family.settle is not None:
        config = family.settle(config, tensors.names)
    told = read_told(source, config) if file is None else (reader.fields, None)
    if file is None and isinstance(config, EncoderDecoderConfig) and (start := start_id(*told)) is not None:
        config = dataclasses.replace(config, start_id=start)
    generation = generation_defaults(*told)
    return Published(source=source, family=family, config=config, tensors=tensors, generation=generation, gguf=file)


def is_gguf(path: str | Path) -> bool:
    return str(path).endswith(".gguf")


def read_config(family: Family, reader: ConfigReader) -> Any:
    """Our config from a published one, every field of which is accounted for."""
    try:
        config = family.read_config(reader)
    except (ValueError, TypeError) as error:
        if reader.source in str(error):
            raise
        raise ValueError(f"{reader.source} does not describe a {family.architectures[0]}: {error}") from error
    reader.finish()
    return config
