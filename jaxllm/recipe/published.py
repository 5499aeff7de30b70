"""A published model, from a Hugging Face folder or name or a GGUF file."""

import os
import warnings
from pathlib import Path

from jax.sharding import Mesh

from jaxllm.data import Tokenizer
from jaxllm.data.image_input import ImageInput
from jaxllm.interchange import Published, load_params, open_published, stored_dtypes
from jaxllm.models import VisionConfig, abstract_params, make_model
from jaxllm.recipe.device_config import inference_config
from jaxllm.recipe.loaded import Loaded
from jaxllm.sharding import shardings_for


def load_published(name_or_path: str | Path, mesh: Mesh, dtype: str | None) -> Loaded:
    """The model of a Hugging Face folder or name; its weights are read straight into their places."""
    published = open_published(name_or_path)
    config = inference_config(published.config, dtype, mesh)
    model = make_model(config)
    abstract, axes = abstract_params(model)
    shardings = shardings_for(abstract, axes, mesh)
    params = load_params(published.tensors, published.family, config, abstract, shardings)
    image_input, image_problem = _published_image_input(published)
    return Loaded(
        model=model,
        params=params,
        tokenizer=None if isinstance(config, VisionConfig) else published_tokenizer(published),
        source=published.source,
        generation=published.generation,
        sentence=published.read_sentence(),
        image_input=image_input,
        image_problem=image_problem,
        architecture=published.family.architectures[0],
        stored_dtypes=stored_dtypes(published.tensors, published.family, config, abstract),
    )


def published_tokenizer(published: Published) -> Tokenizer | None:
    """None where there are no tokenizer files: the model can be called with ids all the same."""
    try:
        return published.load_tokenizer()
    except FileNotFoundError as error:
        warnings.warn(f"the model has no tokenizer, so it is called with ids only: {error}", stacklevel=4)
        return None


def _published_image_input(published: Published) -> tuple[ImageInput | None, str | None]:
    """How pictures become its input, or why that cannot be followed, without the folder, which another machine has not: it can
    be called with normalized pixels all the same."""
    try:
        return published.read_image_input(), None
    except ValueError as error:
        return None, str(error).replace(f"{published.source}{os.sep}", "")
