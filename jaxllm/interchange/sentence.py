"""How a folder of the sentence-transformers library makes one vector of a text: its modules.json and what it names."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first", "mean": "mean", "cls": "first"}
"""Published names of ways to pool -> ours."""


@dataclass(frozen=True, kw_only=True)
class SentenceConfig:
    """What `jaxllm.inference.embed` is to be called with."""

    pooling: Literal["mean", "first"] = "mean"
    """Mean over a text's tokens, or its first token."""
    normalize: bool = True
    """Whether vectors are scaled to length 1."""
    max_len: int | None = None
    """Tokens of a text, special ones included; what is beyond is left out. By default the model's context."""


def read_sentence_config(folder: Path) -> SentenceConfig | None:
    """How vectors are made of the encoder's output; None where the folder does not say.

    Raises:
      ValueError: a step that is not computed here.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return None
    modules = {module["type"].rpartition(".")[2]: folder / module["path"] for module in _read(path)}
    unknown = modules.keys() - {"Transformer", "Pooling", "Normalize"}
    if unknown or "Pooling" not in modules:
        raise ValueError(
            f"{path} must name Transformer, Pooling and perhaps Normalize to be computed here: got {list(modules)}"
        )
    if modules.get("Transformer", folder) != folder:
        raise ValueError(f"{path} must have the encoder in {folder}: it is in {modules['Transformer']}; copy its files there")
    texts = _read_if_there(folder / "sentence_bert_config.json")
    if texts.get("do_lower_case"):
        raise ValueError(
            f"do_lower_case in {folder / 'sentence_bert_config.json'} must be false to be computed here; set it so if the "
            "tokenizer makes letters small by itself, else do that to your texts"
        )
    prompt = _read_if_there(folder / "config_sentence_transformers.json").get("default_prompt_name")
    if prompt is not None:
        raise ValueError(
            f"default_prompt_name in {folder / 'config_sentence_transformers.json'} must be null to be computed here: got "
            f"{prompt!r}; put that prompt before your texts and set it to null"
        )
    return SentenceConfig(
        pooling=_pooling(modules["Pooling"] / "config.json"),
        normalize="Normalize" in modules,
        max_len=texts.get("max_seq_length"),
    )


def write_sentence_config(folder: Path, sentence: SentenceConfig, embed_dim: int) -> None:
    """Writes the files that `read_sentence_config`, and sentence-transformers, read."""
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), *([("Normalize", "2_Normalize")] if sentence.normalize else [])]
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(modules)
    ]
    pooling = {
        "word_embedding_dimension": embed_dim,
        "pooling_mode_cls_token": sentence.pooling == "first",
        "pooling_mode_mean_tokens": sentence.pooling == "mean",
    }
    texts = {"max_seq_length": sentence.max_len, "do_lower_case": False}
    for path in ("1_Pooling", *(["2_Normalize"] if sentence.normalize else [])):
        (folder / path).mkdir()
    contents = {"modules.json": listed, "1_Pooling/config.json": pooling, "sentence_bert_config.json": texts}
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _pooling(path: Path) -> Any:
    fields = _read(path)
    modes = [name for name, value in fields.items() if name.startswith("pooling_mode_") and value]
    modes = modes or [fields.get("pooling_mode", "mean")]
    if len(modes) != 1 or modes[0] not in _MODES:
        raise ValueError(f"{path} must pool by mean or by the first token to be computed here: got {', '.join(modes)}")
    return _MODES[modes[0]]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); copy or download it again") from error


def _read_if_there(path: Path) -> dict[str, Any]:
    return _read(path) if path.is_file() else {}
