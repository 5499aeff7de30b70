"""A trained model, ready to be used: from the folder of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from jaxllm.checkpoint import Store
from jaxllm.data import Tokenizer
from jaxllm.hardware import set_up
from jaxllm.inference import SamplingConfig, generate
from jaxllm.models import Output, Transformer, TransformerConfig
from jaxllm.recipe.assemble import Job, assemble
from jaxllm.recipe.find import find_recipe, is_run_folder
from jaxllm.recipe.recipe import Recipe
from jaxllm.recipe.run_folder import RunFolder
from jaxllm.training import TrainState, evaluation_params


@dataclass(frozen=True)
class Loaded:
    """A model with its parameters and tokenizer."""

    model: Transformer
    params: Any
    tokenizer: Tokenizer
    recipe: Recipe
    step: int
    """Steps it was trained for."""

    @property
    def config(self) -> TransformerConfig:
        return self.model.config

    def __call__(self, tokens: Int[Array, "B T"] | Sequence[Sequence[int]]) -> Output:
        """Logits of the tokens after each of these."""
        return self.model.apply({"params": self.params}, jnp.asarray(tokens, jnp.int32))  # type: ignore[return-value]

    def generate(self, prompts: str | Sequence[str], **sampling: Any) -> list[str]:
        """Completions; see `SamplingConfig` for the options."""
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        return generate(self.model, self.params, self.tokenizer, prompts, SamplingConfig(**sampling))


def load(path: str | Path, *, step: int | None = None) -> Loaded:
    """The model of a run.

        run = jaxllm.load("runs/shakespeare_char")
        print(run.generate("ROMEO:", max_tokens=200, temperature=0.8)[0])

    Args:
      step: the checkpoint to take. By default the one with the best validation loss, else the newest.

    Raises:
      ValueError: not a run folder, a damaged checkpoint, or a tokenizer that does not match it.
    """
    set_up()
    job, state, step = restore(path, step=step)
    return Loaded(job.model, jax.device_put(state, jax.devices()[0]), job.data.tokenizer, job.recipe, step)


def restore(path: str | Path, *, step: int | None = None) -> tuple[Job, Any, int]:
    """The job of a run folder, the parameters to evaluate it with, and the step they are from."""
    if not is_run_folder(path):
        raise ValueError(f"{path} is not a run folder: it has no recipe.json; train first with `jaxllm train`")
    folder = RunFolder(Path(path), resumes=True)
    recipe = find_recipe(str(path))
    tokenizer = folder.load_tokenizer()
    if tokenizer is None or tokenizer.vocab_size > recipe.model.vocabulary:
        found = "none" if tokenizer is None else f"one with {tokenizer.vocab_size} entries"
        raise ValueError(
            f"the tokenizer in {folder.tokenizer} must have at most {recipe.model.vocabulary} entries, as the checkpoint's "
            f"vocabulary: got {found}; put the run's own tokenizer back"
        )
    job = assemble(recipe, tokenizer)
    store = Store(folder.checkpoints, recipe.checkpoint)
    chosen = step if step is not None else store.best_step()
    if recipe.optimizer.ema is None:
        found = store.restore_params(job.abstract.params, chosen)
        return job, found.state, found.step
    found = store.restore(job.abstract, chosen)
    state: TrainState = found.state
    return job, evaluation_params(state.params, state.opt_state), found.step
