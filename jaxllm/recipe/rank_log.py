"""The ranks that AdaLoRA leaves to each matrix, written down while it learns: `ranks.jsonl` of a run folder."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from jaxllm.distributed import is_first
from jaxllm.evaluate.ranks import RANKS_FILE
from jaxllm.finetune import AdaLoRA, AnyMethod, report
from jaxllm.training import TrainState


def rank_log(folder: Path, method: AnyMethod, resume_step: int | None) -> Callable[[int, TrainState], str | None]:
    """What writes a line for the state after a step, and says the budget; of another method nothing. By all processes.

    Args:
      resume_step: the last step that a run has seen which goes on: later lines, and one that a kill cut short, are dropped.
    """
    if not isinstance(method, AdaLoRA):
        return lambda step, state: None
    path = folder / RANKS_FILE
    if is_first():
        _begin(path, resume_step)

    def write(step: int, state: TrainState) -> str:
        found = report(state)
        if is_first():
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **found}) + "\n")
        return f"step {step}: a budget of {found['budget']:,} of {method.init_rank * len(found['ranks']):,} ranks"

    return write


def _begin(path: Path, resume_step: int | None) -> None:
    lines = path.read_text("utf-8").splitlines(keepends=True) if resume_step is not None and path.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]
    kept = [line for line in whole if resume_step is not None and json.loads(line)["step"] <= resume_step]
    replacement = path.with_suffix(".jsonl.new")
    replacement.write_text("".join(kept), "utf-8")
    os.replace(replacement, path)
