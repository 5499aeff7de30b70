"""The tensors of a PEFT file, sorted by what they are of: modules that are adapted, weights of the base, and others."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from jaxllm.finetune.peft.config import made_for
from jaxllm.finetune.peft.modules import Layout, Module
from jaxllm.interchange import ConfigReader, SafetensorsFolder
from jaxllm.interchange.safetensors_folder import read_header

TENSORS = "adapter_model.safetensors"
_OWN = re.compile(
    r"(.*)\.(lora_A\.weight|lora_B\.weight|lora_A|lora_B|lora_E|lora_B\.bias|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector(?:\.weight)?|ia3_l|vera_lambda_b|vera_lambda_d)"
)
_COPIES = (".modules_to_save.", ".original_module.")
"""In names of copies that PEFT writes beside what counts."""
_SHOWN = 4

Own = dict[str, Float[np.ndarray, "..."]]


@dataclass(frozen=True)
class Incoming:
    """An adapter's config and tensors, for a model."""

    reader: ConfigReader
    layout: Layout
    own: dict[str, Own]
    """By the name that the file gives a module, the adapter's tensors."""
    base: dict[str, Shaped[np.ndarray, "..."]]
    """By published name, weights of the model that come with the adapter."""
    saved: tuple[str, ...]
    """Those of them that learn: they belong to modules_to_save."""
    others: Own
    """What belongs to no module."""

    @property
    def made_for(self) -> str:
        return made_for(self.reader.fields)

    def module(self, name: str) -> Module:
        """The published module that a name in the file means."""
        found = self.layout.named(name, self.layout.modules)
        if found is None and self.layout.named(f"{name}.weight", self.layout.tensors) is not None:
            raise ValueError(
                f"{self.reader.source} adapts {name}, which is not adapted here, as experts and parts of heads are not: merge "
                "the adapter with PEFT"
            )
        if found is None:
            raise ValueError(
                f"{self.reader.source} is for a model with a module {name}, which this one has not: it was made for "
                f"{self.made_for}; load it into that"
            )
        return self.layout.modules[found]

    def shaped(self, name: str, leaf: str, shape: tuple[int | None, ...]) -> Float[np.ndarray, "..."]:
        """A tensor of a module, of this shape; None for any size.

        Raises:
          ValueError: there is none, or of another shape.
        """
        found = self.own[name].get(leaf)
        if found is None:
            raise ValueError(f"the tensors beside {self.reader.source} must have {name}.{leaf}: there is none; copy them again")
        other = found.ndim != len(shape) or any(b not in (None, a) for a, b in zip(found.shape, shape, strict=True))
        if other:
            want = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(
                f"{name}.{leaf} must have shape [{want}] in this model: got {list(found.shape)}; the adapter was made for "
                f"{self.made_for}, load it into that"
            )
        return found.astype(np.float32)


def read_tensors(folder: Path, reader: ConfigReader, layout: Layout) -> Incoming:
    """What is beside a config.

    Raises:
      FileNotFoundError: no tensors.
      ValueError: a pickle, or tensors that mean nothing in this model.
    """
    stored = open_adapter(folder)
    own: dict[str, Own] = {}
    base: dict[str, Any] = {}
    saved, others, unknown = [], {}, []
    for name in stored.names:
        array = np.array(stored.read(name, tuple(slice(None) for _ in stored.shape(name))))
        short = name.removeprefix("base_model.").removeprefix("model.") if name.startswith("base_model.model.") else name
        short = short.removeprefix("base_model.")
        match = _OWN.fullmatch(short)
        if match:
            leaf = match[2].removesuffix(".weight") if match[2].startswith("lora_magnitude") else match[2]
            own.setdefault(match[1], {})[leaf] = array
        elif short in ("vera_A", "vera_B", "prompt_embeddings"):
            others[short] = array
        elif any(copy in short for copy in _COPIES):
            continue
        else:
            known = layout.named(short.replace(".base_layer.", "."), layout.tensors)
            if known is None:
                unknown.append(name)
                continue
            base[known] = array
            if ".base_layer." not in short:
                saved.append(known)
    incoming = Incoming(reader, layout, own, base, tuple(saved), others)
    if unknown:
        _refuse(incoming, folder, unknown)
    return incoming


def open_adapter(folder: Path) -> SafetensorsFolder:
    """The tensors of an adapter, still on disk."""
    path = folder / TENSORS
    if path.is_file():
        return SafetensorsFolder(folder, read_header(path))
    if (folder / "adapter_model.bin").is_file():
        raise ValueError(
            f"{folder} has its weights in adapter_model.bin, a pickle, which can run any program when it is opened, so it is "
            f"not read: take a version with {TENSORS}, or, where you trust the file, load and save it with PEFT"
        )
    raise FileNotFoundError(f"expected {TENSORS} in {folder}: it is not there; download it, too")


def _refuse(incoming: Incoming, folder: Path, unknown: list[str]) -> None:
    layout = incoming.layout
    names = [name.removeprefix("base_model.").removeprefix("model.") for name in unknown]
    tied = [name for name in names if layout.family.stands_for(name, layout.tensors) is not None]
    if tied:
        raise ValueError(
            f"{folder / TENSORS} has a {tied[0]} of its own, which this model shares with its embedding: save the base with "
            "tie_word_embeddings=false, and load the adapter into that"
        )
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    raise ValueError(
        f"{folder / TENSORS} has tensors that mean nothing in this model: {', '.join(unknown[:_SHOWN])}{more}; it was made for "
        f"{incoming.made_for}, load it into that"
    )
