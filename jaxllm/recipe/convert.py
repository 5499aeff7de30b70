"""A model from one layout to another: published folders, GGUF files, runs and our own model folders."""

import dataclasses
import warnings
from pathlib import Path
from typing import Literal

from jaxllm.finetune import unadapted
from jaxllm.finetune.operations import merge
from jaxllm.hardware.bucket import in_bucket, local_path
from jaxllm.interchange import find_family, write_folder
from jaxllm.recipe.adapter import save_adapter
from jaxllm.recipe.family import family_of
from jaxllm.recipe.load import load
from jaxllm.recipe.loaded import Loaded
from jaxllm.recipe.model_folder import write_model_folder

Layout = Literal["hf", "jaxllm", "peft"]


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    to: Layout = "hf",
    dtype: str | None = None,
    architecture: str | None = None,
) -> Path:
    """Writes a model in another layout; the new folder appears when everything is in it.

        convert("runs/tinystories", "exported")                    # loads in transformers
        convert("HuggingFaceTB/SmolLM2-135M", "smollm2", to="jaxllm", dtype="bfloat16")

    Args:
      source: anything that `load` takes.
      to: "hf", a Hugging Face folder; "jaxllm", a checkpoint that restores on any mesh; or "peft", of a fine-tuned run only the
        adapter, as Hugging Face PEFT reads it.
      dtype: the type to store. By default that of a run's parameters; of a published folder that goes out again as one, each
        tensor's own, so that it comes out equal to the byte; and float32 of others.
      architecture: the published class to export as. By default the one it came from, else one that says what its config
        says.

    Raises:
      FileExistsError: there is something at `destination`.
      ValueError: no published class, or not the one asked for, says what the config says.
    """
    if in_bucket(destination):
        raise ValueError(
            f"the destination must be a folder of this host: got {destination}; convert to a folder, and copy that by "
            f"`gcloud storage cp --recursive FOLDER {destination}`"
        )
    destination = local_path(destination)
    if destination.exists():
        raise FileExistsError(f"{destination} must be a new folder: there is something already; name another, or move it away")
    if architecture is not None:
        find_family(architecture, "the command")
    loaded = load(source, dtype=dtype)
    if to == "peft":
        return save_adapter(loaded, destination, to="peft")
    loaded = _merged(loaded)
    if to == "jaxllm":
        write_model_folder(destination, loaded)
        return destination
    family = family_of(loaded.config, architecture or loaded.architecture, loaded.source)
    if loaded.prefix:
        warnings.warn(
            f"{source} reads a prompt from both sides, which no published class does: what the new folder writes will differ",
            stacklevel=2,
        )
    return write_folder(
        destination,
        family,
        loaded.config,
        loaded.params,
        loaded.tokenizer,
        dtype=loaded.stored_dtypes if dtype is None else None,
        generation=loaded.generation,
        sentence=loaded.sentence,
        image_input=loaded.image_input,
    )


def _merged(loaded: Loaded) -> Loaded:
    """The model with what an adapter has learned worked in: other layouts hold no adapters.

    Raises:
      ValueError: a method whose parameters stand before a text.
    """
    if unadapted(loaded.model) is loaded.model:
        return loaded
    try:
        found = merge(loaded.model, loaded.params)
    except ValueError as error:
        raise ValueError(f"{loaded.source}: {error}, which save_adapter writes") from None
    return dataclasses.replace(loaded, model=found.model, params=found.params)
