"""Any recipe at a size that steps in a second: its own architecture, objective and optimizer, narrow, on little data."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from jaxllm.data import ImageDataConfig
from jaxllm.data.tfds_builder import Features, Image, Label, write_set
from jaxllm.models import EncoderDecoderConfig, ModelConfig, TransformerConfig, VisionConfig
from jaxllm.recipe import Recipe
from jaxllm.sharding.axes import MESH_AXES
from jaxllm.training.objectives import SequenceToSequence

SEQ_LEN = 32


def shrunk(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe, small, with two parts along each axis of its mesh, and with its data sets in a folder."""
    chunk = dataclasses.replace(recipe.loss, chunk=recipe.loss.chunk and 8)
    objective: Any = recipe.objective
    if isinstance(objective, SequenceToSequence):
        objective = dataclasses.replace(objective, target_len=SEQ_LEN)
    optimizer = dataclasses.replace(
        recipe.optimizer, schedule=dataclasses.replace(recipe.optimizer.schedule, warmup_steps=1, decay_steps=None)
    )
    return dataclasses.replace(
        recipe,
        model=_model(recipe.model),
        data=_data(recipe, folder),
        objective=objective,
        loss=chunk,
        optimizer=optimizer,
        batch_size=8 * recipe.accumulate,
        mesh=dataclasses.replace(
            recipe.mesh, **{axis: 2 for axis in MESH_AXES if axis == "data" or (getattr(recipe.mesh, axis) or 0) > 1}
        ),
    )


def _model(model: ModelConfig) -> ModelConfig:
    if isinstance(model, EncoderDecoderConfig):
        return dataclasses.replace(model, encoder=_stack(model.encoder), decoder=_stack(model.decoder))
    if isinstance(model, VisionConfig):
        return dataclasses.replace(model, image_size=8, patch_size=4, encoder=_stack(model.encoder))
    return _stack(model)


def _stack(stack: TransformerConfig) -> TransformerConfig:
    heads = dict(num_heads=4, num_kv_heads=2 if stack.num_kv_heads else None)
    narrow: dict[str, Any] = dict(vocab_size=None, num_layers=2, embed_dim=16, head_dim=None, ffw_dim=24, context_len=SEQ_LEN)
    if stack.window is not None:
        narrow |= dict(window=8, full_attention_layers=(1,) if stack.full_attention_layers else ())
    return dataclasses.replace(stack, layer_loop="scan", **narrow, **heads)  # type: ignore[arg-type]


def _data(recipe: Recipe, folder: Path) -> Any:
    data, splits = recipe.data, ("train", "validation", "test")
    names: dict[str, Any] = dict(dataset="shrunk", data_dir=str(folder), num_workers=0)
    names |= dict(train_split="train", validation_split="validation", test_split="test")
    if isinstance(data, ImageDataConfig):
        images = [(str(i), _picture(i), "ab"[i % 2]) for i in range(32)]
        features: Features = {"id": None, data.image_feature: Image(), data.label_feature: Label(("a", "b"))}
        write_set("shrunk", dict.fromkeys(splits, images), folder, description="", features=features, overwrite=True)
        return dataclasses.replace(data, image_size=8, **names)
    words = Path("jaxllm/data/assets/tiny_shakespeare.txt").read_text()[:20_000].split(" ")
    texts = [" ".join(words[i : i + 9]) for i in range(0, len(words), 9)]
    rows = [(str(i), *texts[i : i + 1 + (data.target_feature is not None)]) for i in range(len(texts) - 1)]
    features = {"id": None, data.text_feature: None} | ({data.target_feature: None} if data.target_feature else {})
    write_set("shrunk", dict.fromkeys(splits, rows), folder, description="", features=features, overwrite=True)
    kind = "bytes" if data.tokenizer.kind == "pretrained" else data.tokenizer.kind
    size = None if data.tokenizer.vocab_size is None else 400
    tokenizer = dataclasses.replace(data.tokenizer, kind=kind, path=None, vocab_size=size)
    return dataclasses.replace(data, seq_len=SEQ_LEN, tokenizer=tokenizer, **names)


def _picture(number: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()
