"""A model without a run: a folder with its config, its parameters as a checkpoint, and its tokenizer."""

import dataclasses
import json
from contextlib import closing
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from jaxllm.checkpoint import Store
from jaxllm.data import Tokenizer, load_tokenizer
from jaxllm.data.image_input import ImageInput
from jaxllm.data.whole import new_folder
from jaxllm.interchange import GenerationDefaults, SentenceConfig
from jaxllm.models import ModelConfig, abstract_params, make_model
from jaxllm.recipe.device_config import inference_config, portable_config
from jaxllm.recipe.loaded import Loaded
from jaxllm.recipe.serialize import from_tree, to_tree
from jaxllm.sharding import placed_shapes

MODEL_FILE = "model.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFile:
    """What model.json holds."""

    config: ModelConfig
    """The model's config."""
    architecture: str | None = None
    """The published class it came from, if it did."""
    generation: GenerationDefaults = GenerationDefaults()
    """Tokens that end a text, and those that are forced or barred in what it writes."""
    prefix: bool = False
    """Whether it reads a prompt from both sides."""
    sentence: SentenceConfig | None = None
    """How a sentence encoder makes one vector of a text."""
    image_input: ImageInput | None = None
    """How pictures become the input of a model of images."""
    image_problem: str | None = None
    """Why that is not known, where it was published in a way that cannot be followed."""


def is_model_folder(path: str | Path) -> bool:
    return (Path(path) / MODEL_FILE).is_file()


def write_model_folder(folder: Path, loaded: Loaded) -> None:
    """Writes a model so that `load` finds it again.

    Raises:
      FileExistsError: there is something at `folder` already.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} must be a new folder: there is something already; name another, or move it away")
    with new_folder(folder) as unfinished:
        _write(unfinished, loaded)


def _write(folder: Path, loaded: Loaded) -> None:
    described = ModelFile(
        config=portable_config(loaded.config),
        architecture=loaded.architecture,
        generation=loaded.generation,
        prefix=loaded.prefix,
        sentence=loaded.sentence,
        image_input=loaded.image_input,
        image_problem=loaded.image_problem,
    )
    text = json.dumps(to_tree(described, ModelFile), indent=2, ensure_ascii=False)
    (folder / MODEL_FILE).write_text(text + "\n", encoding="utf-8")
    if loaded.tokenizer is not None:
        loaded.tokenizer.save(folder / "tokenizer")
    with closing(Store(folder / "checkpoints")) as store:
        store.save(loaded.step or 0, {"params": loaded.params}, {})


def read_model_file(folder: Path) -> tuple[ModelFile, Tokenizer | None]:
    """What the folder says of its model, and the tokenizer."""
    path = folder / MODEL_FILE
    try:
        described = from_tree(ModelFile, json.loads(path.read_text("utf-8")), "", str(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} must hold a model's config as JSON: {error}") from None
    return described, load_tokenizer(folder / "tokenizer") if (folder / "tokenizer").is_dir() else None


def load_model_folder(folder: Path, mesh: Mesh, dtype: str | None) -> Loaded:
    """The model that `write_model_folder` wrote."""
    described, tokenizer = read_model_file(folder)
    model = make_model(inference_config(described.config, dtype, mesh))
    abstract, axes = abstract_params(model)
    placed = placed_shapes(abstract, axes, mesh)
    with closing(Store(folder / "checkpoints")) as store:
        params: Any = store.restore_params(placed).state
    return Loaded(
        model=model,
        params=params,
        tokenizer=tokenizer,
        source=folder,
        generation=described.generation,
        prefix=described.prefix,
        sentence=described.sentence,
        image_input=described.image_input,
        image_problem=described.image_problem,
        architecture=described.architecture,
    )
