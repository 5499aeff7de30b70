"""A model from one layout to another: published folders, GGUF files, runs and our own model folders."""

import warnings
from pathlib import Path
from typing import Literal

from jaxllm.hardware.bucket import in_bucket, local_path
from jaxllm.interchange import Family, find_family, known_families, published_config, write_folder
from jaxllm.models import ModelConfig
from jaxllm.recipe.load import load
from jaxllm.recipe.loaded import Loaded
from jaxllm.recipe.model_folder import write_model_folder

Layout = Literal["hf", "jaxllm"]


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
      to: "hf", a Hugging Face folder; or "jaxllm", a checkpoint that restores on any mesh.
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
    if to == "jaxllm":
        write_model_folder(destination, loaded)
        return destination
    family = _family(loaded, architecture)
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


def _family(loaded: Loaded, architecture: str | None) -> Family:
    wanted = architecture or loaded.architecture
    if wanted is not None:
        return find_family(wanted)
    for family in known_families().values():
        if _says(family, loaded.config):
            return family
    kind = type(loaded.config).__name__
    raise ValueError(
        f"no published architecture says all that the {kind} of {loaded.source} says: name the nearest with --as ARCHITECTURE, "
        "and the fields in the way are listed; or convert with --to jaxllm"
    )


def _says(family: Family, config: ModelConfig) -> bool:
    try:
        published_config(family, config)
    except (ValueError, TypeError, KeyError, AttributeError):  # another kind of config, or one it has no words for
        return False
    return True
