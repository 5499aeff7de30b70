"""A folder with an adapter as PEFT writes and reads it: adapter_config.json and adapter_model.safetensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxllm.data.whole import new_folder
from jaxllm.finetune.adalora import AdaLoRA
from jaxllm.finetune.ia3 import IA3
from jaxllm.finetune.lora import LoRA
from jaxllm.finetune.method import Method
from jaxllm.finetune.peft.base import bias_tensors, read_base, saved_modules
from jaxllm.finetune.peft.config import PROMPTS, made_for, read_config, task_type, write_config
from jaxllm.finetune.peft.flat import Flat, Place, taken_apart
from jaxllm.finetune.peft.incoming import TENSORS, Incoming, read_tensors
from jaxllm.finetune.peft.low_rank import read_adalora, read_lora
from jaxllm.finetune.peft.low_rank_out import write_adalora, write_lora
from jaxllm.finetune.peft.modules import Layout
from jaxllm.finetune.peft.soft import read_prefix, read_prompt, write_prefix, write_prompt
from jaxllm.finetune.peft.vectors import read_ia3, read_vera, write_ia3, write_vera
from jaxllm.finetune.prefix import PrefixTuning
from jaxllm.finetune.prompt import Prompt
from jaxllm.finetune.soft import Soft
from jaxllm.finetune.vera import VeRA
from jaxllm.interchange.safetensors_folder import Outgoing, write_file
from jaxllm.models import overlay

READ: dict[str, Callable[[Incoming, tuple[str, ...]], tuple[Any, Any]]] = {
    "LORA": read_lora,
    "ADALORA": read_adalora,
    "IA3": read_ia3,
    "VERA": read_vera,
    "PREFIX_TUNING": read_prefix,
    "PROMPT_TUNING": read_prompt,
    "P_TUNING": read_prompt,
}
WRITE: dict[type, tuple[str, Callable[..., tuple[dict[str, Any], dict[str, Any], list[str]]]]] = {
    LoRA: ("LORA", write_lora),
    AdaLoRA: ("ADALORA", write_adalora),
    IA3: ("IA3", write_ia3),
    VeRA: ("VERA", write_vera),
}


@dataclass(frozen=True)
class Adapter:
    """What a file adds to a model."""

    method: Any
    """The fine-tuning method that computes with it."""
    params: Any
    """Its parameters, and those of the model that it changes, to be put over the model's: nested dicts of NumPy arrays."""
    base: str
    """The model that it was made for."""


def read_adapter(folder: Path, layout: Layout) -> Adapter:
    """An adapter written by PEFT, for a model.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a peft_type or a field that is not known here, a pickle, or an adapter for another model.
    """
    reader = read_config(folder)
    incoming = read_tensors(folder, reader, layout)
    kind = reader.fields["peft_type"]
    params, also = read_base(incoming, str(reader.fields.get("bias") or "none"))
    method, own = READ[kind](incoming, also)
    reader.finish()
    return Adapter(method, overlay(params, own), made_for(reader.fields))


def write_adapter(folder: Path, layout: Layout, method: Any, params: Any, base: str) -> Path:
    """Writes an adapter so that PEFT reads it; the folder appears when everything is in it.

    Args:
      layout: of the model without the method, its parameters as they are now.
      method: the fine-tuning method.
      params: all of the model's, the method's among them.
      base: the model that it is for, as PEFT is to find it: a folder or a name.

    Raises:
      FileExistsError: `folder` is there already.
      ValueError: PEFT has no such method, or cannot say what this adapter is.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: name a folder that is not there yet, or remove it first")
    kind, fields, tensors = _content(layout, method, params)
    prefix = "base_model." if kind in PROMPTS else "base_model.model."
    named = {name if name == "prompt_embeddings" else _prefixed(name, prefix): array for name, array in tensors.items()}
    with new_folder(folder) as unfinished:
        write_config(unfinished, kind, base, task_type(layout.config), fields)
        write_file(unfinished / TENSORS, [_outgoing(name, array) for name, array in named.items()])
    return folder


def _content(layout: Layout, method: Method, params: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """peft_type, fields, and tensors without the words before their names."""
    bias = getattr(method, "bias", "none")
    learnt = {path for path in layout.leaves if method.learns(path)}
    if bias != "none":
        own = {path.rpartition("/")[0] for path in learnt if not path.endswith("/bias")}
        learnt = {path for path in learnt if not path.endswith("/bias") or path.rpartition("/")[0] in own}
    if isinstance(method, Soft):
        assert isinstance(method, PrefixTuning | Prompt)
        write_soft: Any = write_prefix if isinstance(method, PrefixTuning) else write_prompt
        kind, fields, tensors = write_soft(layout, method, params)
        adapted: list[str] = []
    elif type(method) in WRITE:
        kind, write = WRITE[type(method)]
        fields, tensors, adapted = write(layout, method, flats_of(layout, params, str(method.leaf)))
    else:
        known = ", ".join([*(kind.__name__ for kind in WRITE), "PrefixTuning", "PromptTuning", "PTuning"])
        raise ValueError(
            f"PEFT has no method {type(method).__name__}: it has {known}; keep jaxllm's own layout (save_adapter), or if the "
            "method can be merged, convert the whole model"
        )
    saved = saved_modules(layout, learnt, adapted)
    fields["modules_to_save"] = saved.fields(layout)
    return kind, fields, tensors | bias_tensors(layout, bias, adapted, saved.tensors) | saved.tensors


def flats_of(layout: Layout, params: Any, leaf: str) -> dict[Place, Flat]:
    """A method's parameters of every matrix of every layer."""
    targets = {target.path: target for module in layout.modules.values() for target in module.targets}
    found: dict[Place, Flat] = {}
    for path, target in targets.items():
        module: Mapping[str, Any] = params
        for name in path.split("/"):
            module = module[name]
        if leaf in module:
            found |= {(path, layer): flat for layer, flat in enumerate(taken_apart(module[leaf], target))}
    return found


def _prefixed(name: str, prefix: str) -> str:
    return f"base_model.{name}" if name in ("vera_A", "vera_B") else f"{prefix}{name}"


def _outgoing(name: str, array: Any) -> Outgoing:
    array = np.asarray(jax.device_get(array))
    return Outgoing(name, array.shape, array.dtype, lambda: array)
