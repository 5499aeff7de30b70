"""Where the figures of a run go besides its own log: TensorBoard, Weights & Biases."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4


def open_tensorboard(folder: Path, resume_step: int | None, opened: ExitStack) -> Callable[[list[dict]], None]:
    """What writes the last of some records, until `opened` closes."""
    from tensorboardX import SummaryWriter

    purge_step = 0 if resume_step is None else resume_step + 1
    # Files are named by the second: without a suffix, a run resumed at once would overwrite what it resumes.
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge_step, filename_suffix=f".{purge_step}")
    opened.callback(writer.close)

    def write(records: list[dict]) -> None:
        for name, value in _values(records[-1]).items():
            writer.add_scalar(name, value, records[-1]["step"])
        writer.flush()

    return write


def open_wandb(folder: Path, project: str, opened: ExitStack) -> Callable[[list[dict]], None]:
    """As `open_tensorboard`, to Weights & Biases.

    Raises:
      ValueError: its package is not installed.
    """
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            f"log.wandb_project needs the package wandb: got {project!r}, but wandb is not installed. "
            "Run `pip install 'jaxllm[wandb]'`, or leave log.wandb_project out."
        ) from None
    id_file = folder / "wandb_run_id"
    if not id_file.exists():
        id_file.write_text(uuid4().hex)
    run = wandb.init(project=project, dir=str(folder), name=folder.name, id=id_file.read_text(), resume="allow")
    opened.callback(run.finish)
    # A resumed run may repeat steps. W&B refuses a step it has seen as its own counter, but not as a value to plot by.
    run.define_metric("*", step_metric="step")

    def write(records: list[dict]) -> None:
        run.log({"step": records[-1]["step"], **_values(records[-1])})

    return write


def _values(record: dict) -> dict[str, float]:
    """The numbers of a record under the names that trackers show: `train/loss`."""
    return {
        f"{record['split']}/{name}": value
        for name, value in record.items()
        if name not in ("step", "split") and value is not None
    }
