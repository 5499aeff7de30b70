"""A base model with the head that an adapter brings: what was trained on a task is loaded onto the model without one."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxllm.finetune.peft import CONFIG
from jaxllm.finetune.peft.incoming import TENSORS, open_adapter
from jaxllm.interchange import ConfigReader, known_families, published_config
from jaxllm.interchange.config_reader import read_fields
from jaxllm.models import HeadConfig, TransformerConfig, abstract_params, make_model, overlay, partition, path_of
from jaxllm.recipe.adapter_folder import head_in
from jaxllm.recipe.family import family_of
from jaxllm.recipe.loaded import Loaded

_CLASSES = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
}
TASKS = ("sequence", "tokens", "span")
"""Kinds of head that are trained with an adapter."""


def with_head_of(loaded: Loaded, folder: Path) -> Loaded:
    """The base, with the kind of head that an adapter in `folder` was trained with; its numbers are 0 until the adapter gives
    them. The base itself where that is the one it has."""
    config = loaded.config
    own = head_in(folder)
    head = _head_of_peft(loaded, folder) if own is None else own if own.kind in TASKS else None
    if head is None or not isinstance(config, TransformerConfig) or head == config.head:
        return loaded
    config = dataclasses.replace(config, head=head)
    model = make_model(config)
    shapes = {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(abstract_params(model)[0])}
    there = {path_of(keys): leaf.shape for keys, leaf in jax.tree_util.tree_leaves_with_path(loaded.params)}
    fitting = {path for path, leaf in shapes.items() if there.get(path) == leaf.shape}
    params = partition(loaded.params, lambda path: path in fitting)[0]
    for path, leaf in shapes.items():
        if path not in fitting:
            value: Any = np.zeros(leaf.shape, leaf.dtype)
            for name in reversed(path.split("/")):
                value = {name: value}
            params = overlay(params, value)
    return dataclasses.replace(loaded, model=model, params=params, architecture=None)


def labels_in(folder: Path) -> int | None:
    """Labels of the head that an adapter brings; None where it brings none."""
    own = head_in(folder)
    if own is not None:
        return own.num_labels
    if not (folder / CONFIG).is_file() or not (folder / TENSORS).is_file():
        return None
    stored = open_adapter(folder)
    sizes = [stored.shape(name)[0] for name in stored.names if name.endswith(("classifier.weight", "score.weight"))]
    return sizes[0] if sizes else None


def _head_of_peft(loaded: Loaded, folder: Path) -> HeadConfig | None:
    """The head of the published class that PEFT's task_type means, with as many labels as the file has."""
    if not (folder / CONFIG).is_file() or not (folder / TENSORS).is_file() or not isinstance(loaded.config, TransformerConfig):
        return None
    ending = _CLASSES.get(str(read_fields(folder / CONFIG).get("task_type")))
    if ending is None:
        return None
    base = family_of(loaded.config, loaded.architecture, loaded.source)
    stem = re.sub(r"(Model|LMHeadModel|For[A-Za-z]+)$", "", base.architectures[0])
    family = known_families().get(f"{stem}{ending}")
    count = 2 if ending == _CLASSES["QUESTION_ANS"] else labels_in(folder)
    if family is None or count is None:
        return None
    if loaded.config.head.num_labels == count and family.architectures == base.architectures:
        return loaded.config.head
    labels = {"id2label": {str(label): f"LABEL_{label}" for label in range(count)}}
    fields: Mapping[str, Any] = published_config(base, loaded.config) | {"architectures": [f"{stem}{ending}"], **labels}
    return family.read_config(ConfigReader(fields, folder / CONFIG)).head
