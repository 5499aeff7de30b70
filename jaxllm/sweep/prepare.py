"""Before a sweep's first run: is the recipe one that can run here, and what are its runs compared by?"""

from jaxllm.checkpoint import Best
from jaxllm.distributed import num_processes
from jaxllm.hardware import set_up
from jaxllm.recipe import Recipe, assemble
from jaxllm.recipe.pretrained import described, pretrained_tokenizer
from jaxllm.recipe.resolve import best_of


def goal_of(recipe: Recipe) -> Best:
    """Opens the data and fits the recipe to this machine, and trains nothing.

    Raises:
      ValueError, FileNotFoundError: what a run of it would refuse, and a recipe without evaluations.
    """
    if recipe.data.validation_split is None:
        raise ValueError("a sweep compares runs on the validation split: got data.validation_split=None; name one")
    set_up()
    if num_processes() > 1:
        raise ValueError(f"a sweep runs in one process: got {num_processes()}; train its best trial with more")
    job = assemble(described(recipe), pretrained_tokenizer(recipe))
    return best_of(job.recipe)
