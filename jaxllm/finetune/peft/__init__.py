"""Adapters of Hugging Face PEFT, read and written without it: adapter_config.json and adapter_model.safetensors.

`read_adapter(folder, layout)` gives a method and its parameters, `write_adapter` the folder; a `Layout` is a model with the key
map of its family, from which all names and orders follow.
"""

from jaxllm.finetune.peft.config import CONFIG, made_for, read_config
from jaxllm.finetune.peft.folder import Adapter, read_adapter, write_adapter
from jaxllm.finetune.peft.modules import Layout

__all__ = ["CONFIG", "Adapter", "Layout", "made_for", "read_adapter", "read_config", "write_adapter"]
