"""The labels of a classifier in config.json, both ways: how many, their names, and whether a text may have several."""

from typing import Any

from jaxllm.interchange.config_reader import ConfigReader


def read_labels(reader: ConfigReader) -> dict[str, Any]:
    """num_labels and label_names of our config, from `id2label`, or from `num_labels` alone; two where neither is there.

    Raises:
      ValueError: labels that are not numbered from 0.
    """
    named, count = reader.read("id2label", None), reader.read("num_labels", None)
    if named is None:
        return {"num_labels": 2 if count is None else count, "label_names": None}
    if not isinstance(named, dict) or {str(i) for i in range(len(named))} != named.keys():
        raise ValueError(f'id2label in {reader.source} must name the labels by number, {{"0": ..., "1": ...}}: got {named!r}')
    names = tuple(str(named[str(i)]) for i in range(len(named)))
    return {"num_labels": len(names), "label_names": None if names == default_names(len(names)) else names}


def write_labels(num_labels: int | None, label_names: tuple[str, ...] | None) -> dict[str, Any]:
    """The fields that `read_labels` reads; none where there are no labels."""
    if num_labels is None:
        return {}
    names = default_names(num_labels) if label_names is None else label_names
    return {"id2label": {str(i): name for i, name in enumerate(names)}, "label2id": {name: i for i, name in enumerate(names)}}


SEVERAL = "multi_label_classification"
"""What `problem_type` says of a classifier whose texts may have several labels."""


def read_several(reader: ConfigReader) -> bool:
    """`several` of our head, from `problem_type`."""
    return reader.read("problem_type", None) == SEVERAL


def write_several(several: bool) -> dict[str, Any]:
    """The field that `read_several` reads; none where a text has one label."""
    return {"problem_type": SEVERAL} if several else {}


def default_names(num_labels: int) -> tuple[str, ...]:
    """What transformers calls labels that were given no names."""
    return tuple(f"LABEL_{i}" for i in range(num_labels))
