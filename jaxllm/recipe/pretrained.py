"""What a run takes over from a model that was trained before: its config and its tokenizer."""

import dataclasses
from typing import Any

from jaxllm.data import Tokenizer, TokenizerConfig
from jaxllm.finetune import AdaLoRA, Full, learning_rate
from jaxllm.recipe.adapting import described_method
from jaxllm.recipe.device_config import portable_config, replace_stacks
from jaxllm.recipe.load import peek
from jaxllm.recipe.recipe import FromPretrained, Recipe
from jaxllm.training.optimizer import LEARNING_RATE


def described(recipe: Recipe) -> Recipe:
    """The recipe with the config of the pretrained model that it names, its head that of the objective; and a learning rate.

    Raises:
      FileNotFoundError, ValueError: no such model, or one that the recipe cannot work with.
    """
    if recipe.pretrained is None or not isinstance(recipe.model, FromPretrained):
        return with_rate(recipe)
    changes = {name: value for name, value in vars(recipe.model).items() if value is not None}
    config = portable_config(peek(recipe.pretrained).config)
    config = replace_stacks(config, lambda stack: dataclasses.replace(stack, **changes))
    headed = getattr(recipe.objective, "headed", None)
    config = config if headed is None else headed(config)
    data: Any = recipe.data
    if hasattr(data, "tokenizer"):
        data = dataclasses.replace(data, tokenizer=TokenizerConfig(kind="pretrained", path=recipe.pretrained))
    method = recipe.method
    if recipe.adapter is not None and isinstance(method, Full):
        method = described_method(recipe.adapter, config)
        method = dataclasses.replace(method, total_steps=None) if isinstance(method, AdaLoRA) else method
    return with_rate(dataclasses.replace(recipe, model=config, data=data, method=method))


def with_rate(recipe: Recipe) -> Recipe:
    """The method's learning rate where the recipe has none."""
    if recipe.optimizer.learning_rate is not None:
        return recipe
    rate = LEARNING_RATE if recipe.pretrained is None else learning_rate(recipe.method)
    return dataclasses.replace(recipe, optimizer=dataclasses.replace(recipe.optimizer, learning_rate=rate))


def check_rate(recipe: Recipe) -> None:
    """Refuses a fine-tune without a rate by another optimizer than AdamW, whose the methods' rates are."""
    optimizer = recipe.optimizer
    if optimizer.learning_rate is None and recipe.pretrained is not None and optimizer.name != "adamw":
        raise ValueError(
            f"optimizer.learning_rate must be given for {optimizer.name}: the methods' own rates are those of adamw"
        )


def pretrained_tokenizer(recipe: Recipe) -> Tokenizer | None:
    """That of the pretrained model; None where there is no such model, or it has none."""
    return None if recipe.pretrained is None else peek(recipe.pretrained).tokenizer
