"""A trained model, ready to be used: from the folder of a run."""

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Int

from jaxllm.checkpoint import Store
from jaxllm.data import Tokenizer
from jaxllm.hardware import require_devices, set_up
from jaxllm.inference import SamplingConfig, generate
from jaxllm.models import Output, Transformer, TransformerConfig
from jaxllm.recipe.assemble import Job, assemble, device_config
from jaxllm.recipe.find import find_recipe, is_run_folder
from jaxllm.recipe.recipe import Recipe
from jaxllm.recipe.run_folder import RunFolder
from jaxllm.sharding import MeshConfig, MeshError, make_mesh
from jaxllm.training import abstract_state, evaluation_params, make_optimizer


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
    require_devices()
    run = open_run(path)
    mesh = make_mesh(MeshConfig(data=1))
    model = Transformer(device_config(run.recipe.model, mesh))
    params, step = restore_params(run, model, mesh, step)
    return Loaded(model, params, run.tokenizer, run.recipe, step)


class OpenRun(NamedTuple):
    """What the folder of a run says of its model."""

    folder: RunFolder
    recipe: Recipe
    tokenizer: Tokenizer


def open_run(path: str | Path) -> OpenRun:
    """What a run folder says of its model; the data set need not be there.

    Raises:
      ValueError: not a run folder, or a tokenizer that does not match it.
    """
    if not is_run_folder(path):
        raise ValueError(f"{path} is not a run folder: it has no recipe.json; train first with `jaxllm train`")
    folder = RunFolder(Path(path), resumes=True)
    recipe = find_recipe(str(path))
    tokenizer = folder.load_tokenizer()
    if tokenizer is None or tokenizer.vocab_size > recipe.model.vocabulary:
        found = "none" if tokenizer is None else f"one with {tokenizer.vocab_size} entries"
        raise ValueError(
            f"the tokenizer in {folder.tokenizer} must have at most {recipe.model.vocabulary} entries, as the "
            f"checkpoint's vocabulary: got {found}; put the run's own tokenizer back"
        )
    return OpenRun(folder, recipe, tokenizer)


def restore_params(run: OpenRun, model: Transformer, mesh: Mesh, step: int | None) -> tuple[Any, int]:
    """The parameters to use, on this mesh, and the step they are from: the average where the optimizer keeps one."""
    optimizer, _ = make_optimizer(run.recipe.optimizer, run.recipe.steps)
    abstract = abstract_state(model, optimizer, mesh)
    with closing(Store(run.folder.checkpoints, run.recipe.checkpoint)) as store:
        chosen = step if step is not None else store.best_step()
        if run.recipe.optimizer.ema is None:
            found = store.restore_params(abstract.params, chosen)
            params = found.state
        else:
            found = store.restore(abstract, chosen)
            params = evaluation_params(found.state.params, found.state.opt_state)
    if found.meta["tokenizer"] != run.tokenizer.fingerprint:
        raise ValueError(
            f"the tokenizer in {run.folder.tokenizer} must be the one that the checkpoint was trained with: it is another; "
            "put the run's own tokenizer back"
        )
    return params, found.step


def open_for_evaluation(path: str | Path, *, step: int | None = None) -> tuple[Job, Any, int]:
    """The job of a run folder over this machine's devices, the parameters to evaluate it with, and their step."""
    set_up()
    run = open_run(path)
    try:
        job = assemble(run.recipe, run.tokenizer)
    except MeshError:  # trained on another machine: over the devices of this one
        job = assemble(dataclasses.replace(run.recipe, mesh=MeshConfig()), run.tokenizer)
    params, step = restore_params(run, job.model, job.mesh, step)
    return job, params, step
