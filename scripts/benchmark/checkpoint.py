"""The run that a script measures, from its command line: its folder, and which of its checkpoints."""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from jaxllm.recipe import Job, open_for_evaluation


class Checkpoint(NamedTuple):
    run_dir: Path
    job: Job
    params: Any
    step: int


def open_checkpoint(description: str | None) -> Checkpoint:
    """The checkpoint that the command line names; the help begins with the first line of `description`."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0] if description else None)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--step", type=int, help="the checkpoint to take; by default the best by validation loss")
    options = parser.parse_args()
    return Checkpoint(options.run_dir, *open_for_evaluation(options.run_dir, step=options.step))
