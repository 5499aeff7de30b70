import pytest

from jaxllm.cli.overrides import METHODS, override
from jaxllm.finetune import LoRA, PrefixTuning
from jaxllm.recipe import find_recipe

SST2 = "configs/minilm_sst2.py"


def test_a_method_by_its_name_and_its_fields():
    recipe = find_recipe(SST2)
    changed = override(recipe, ["--steps", "7", "--method", "lora", "--method.rank", "4"])
    assert changed.method == LoRA(rank=4) and changed.steps == 7
    assert override(recipe, ["--method=prefix-tuning"]).method == PrefixTuning()
    assert override(recipe, ["--steps", "7"]).method == recipe.method


def test_a_method_that_is_the_recipes_own_keeps_its_fields():
    recipe = override(find_recipe(SST2), ["--method", "lora", "--method.rank", "4"])
    assert override(recipe, ["--method", "lora", "--method.alpha", "3"]).method == LoRA(rank=4, alpha=3.0)


@pytest.mark.parametrize("options", [["--method", "lorra"], ["--method"], ["--method=lorra"]])
def test_an_unknown_method(options):
    with pytest.raises(ValueError, match=f"--method must be one of {', '.join(METHODS)}: got"):
        override(find_recipe(SST2), options)


def test_a_method_is_known_by_its_class_and_its_fields_by_its_name():
    recipe = find_recipe(SST2)
    assert override(recipe, ["--method", "PrefixTuning"]).method == override(recipe, ["--method", "prefix_tuning"]).method
    with pytest.raises(ValueError, match="--method.rank is no field of the method Full, which has no fields; --method NAME"):
        override(recipe, ["--method.rank", "4"])
    with pytest.raises(ValueError, match="unknown field --lora.rank: say --method lora and --method.rank"):
        override(recipe, ["--lora.rank", "4"])
