"""Which recipe a command means: a Python file, a JSON file, or the folder of a run, on a disk or in a bucket."""

import dataclasses
import difflib
import importlib.util
from pathlib import Path

from jaxllm.hardware.bucket import Bucket, in_bucket, local_path
from jaxllm.recipe.recipe import Recipe
from jaxllm.recipe.serialize import RECIPE_FILE, check_types, load_json
from jaxllm.recipe.working_copy import fetched


def is_run_folder(place: str | Path) -> bool:
    """Of a folder, or of a URL in a bucket."""
    if in_bucket(place):
        return Bucket(str(place)).exists(RECIPE_FILE)
    return (local_path(place) / RECIPE_FILE).is_file()


def find_recipe(source: str) -> Recipe:
    """The recipe in `configs/x.py` (its `config()`), in a JSON file, or of a run folder.

    Raises:
      FileNotFoundError: nothing there; the nearest file is named.
      ValueError: a file that holds no recipe.
    """
    if in_bucket(source) and not is_run_folder(source):
        raise FileNotFoundError(f"no run in {source}: there is no {RECIPE_FILE}; is that the folder of a run?")
    path = fetched(source)
    if path.is_dir():
        if not is_run_folder(path):
            recipes = sorted(str(file) for file in path.glob("[!_]*.py"))
            what = f"name one of its recipes: {', '.join(recipes)}" if recipes else "name a run folder or a recipe file"
            raise ValueError(f"{path} is not a run folder: it has no {RECIPE_FILE}; {what}")
        return dataclasses.replace(load_json(path / RECIPE_FILE), run_dir=source if in_bucket(source) else str(path))
    if not path.is_file():
        there = sorted(str(file) for folder in {path.parent, Path("configs")} for file in folder.glob("*.py"))
        near = difflib.get_close_matches(source, there, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; recipes here: {', '.join(there)}" if there else ""
        raise FileNotFoundError(f"no recipe or run folder {source}{hint}")
    return load_json(path) if path.suffix == ".json" else _from_python(path)


def _from_python(path: Path) -> Recipe:
    if path.suffix != ".py":
        raise ValueError(f"a recipe is a .py file, a .json file or a run folder: got {path}")
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "config"):
            raise ValueError("it has no function config() that returns a Recipe")
        recipe = module.config()
    except (TypeError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(recipe, Recipe):
        raise ValueError(f"{path}: config() must return a Recipe: got {type(recipe).__name__}")
    check_types(recipe, str(path))
    return recipe
