"""What is a run, and how does it go?

A `Recipe` describes one run and composes what each room owns; `fit(recipe)` runs or resumes it; `load(name_or_path)`
gives a trained or published model, and `convert` writes one in another layout;
`save_adapter` and `load_adapter` keep what a fine-tuning method has learnt without its base. A recipe is a Python file with
`config() -> Recipe`, or the `recipe.json` of a run.
"""

from jaxllm.recipe.adapter import load_adapter, save_adapter
from jaxllm.recipe.assemble import assemble
from jaxllm.recipe.convert import convert
from jaxllm.recipe.find import find_recipe, is_run_folder
from jaxllm.recipe.fit import Fitted, fit
from jaxllm.recipe.job import Job
from jaxllm.recipe.load import load, open_for_evaluation
from jaxllm.recipe.loaded import Loaded
from jaxllm.recipe.recipe import Recipe, SampleConfig
from jaxllm.recipe.serialize import load_json, save_json

__all__ = [
    "Fitted",
    "Job",
    "Loaded",
    "Recipe",
    "SampleConfig",
    "assemble",
    "convert",
    "find_recipe",
    "fit",
    "is_run_folder",
    "load",
    "load_adapter",
    "load_json",
    "open_for_evaluation",
    "save_adapter",
    "save_json",
]
