"""What the folder of a run says of its model."""

from pathlib import Path
from typing import NamedTuple

from jaxllm.data import Tokenizer
from jaxllm.models import VisionConfig
from jaxllm.recipe.find import find_recipe, is_run_folder
from jaxllm.recipe.recipe import Recipe
from jaxllm.recipe.run_folder import RunFolder, place_of


class OpenRun(NamedTuple):
    """What the folder of a run says of its model."""

    folder: RunFolder
    recipe: Recipe
    tokenizer: Tokenizer | None


def open_run(path: str | Path) -> OpenRun:
    """What a run folder says of its model; the data set need not be there.

    Raises:
      ValueError: not a run folder, or a tokenizer that does not match it.
    """
    if not is_run_folder(path):
        raise ValueError(f"{path} is not a run folder: it has no recipe.json; train first with `jaxllm train`")
    folder = RunFolder(place_of(path), resumes=True)
    recipe = find_recipe(str(path))
    if isinstance(recipe.model_config, VisionConfig):
        return OpenRun(folder, recipe, None)
    tokenizer = folder.load_tokenizer()
    if tokenizer is None or tokenizer.vocab_size > recipe.model_config.vocabulary:
        found = "none" if tokenizer is None else f"one with {tokenizer.vocab_size} entries"
        raise ValueError(
            f"the tokenizer in {folder.tokenizer} must have at most {recipe.model_config.vocabulary} entries, as the "
            f"checkpoint's vocabulary: got {found}; put the run's own tokenizer back"
        )
    return OpenRun(folder, recipe, tokenizer)
