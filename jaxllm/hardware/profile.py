"""A profiler window: `jax.profiler` traces a few chosen steps of a run."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """Which steps to trace."""

    steps: tuple[int, int] | None = None
    """First and last step to trace, both included, counted from 1. None: no trace. Avoid step 1, which compiles."""

    def __post_init__(self):
        if self.steps is not None and not 1 <= self.steps[0] <= self.steps[1]:
            raise ValueError(
                "profile.steps must be two step numbers, first <= last, from 1 up: "
                f"got {self.steps[0]} {self.steps[1]}. Use for example `--profile.steps 10 12`."
            )


class ProfileWindow:
    """Starts and stops the trace around the configured steps; open to be called at every step.

    profile = ProfileWindow(config.profile, run_dir / "tensorboard")
    for step in ...:
        profile.before(step)
        state, metrics = train_step(state, batch)
        profile.after(step, metrics)
    profile.close()
    """

    def __init__(self, config: ProfileConfig, folder: Path):
        self._steps = config.steps
        self._folder = folder
        self._running = False

    def before(self, step: int) -> None:
        """Start the trace if `step` is the window's first (or within it, in a resumed run)."""
        if self._steps is None or self._running or not self._steps[0] <= step <= self._steps[1]:
            return
        import jax

        self._folder.mkdir(parents=True, exist_ok=True)
        jax.profiler.start_trace(str(self._folder))
        self._running = True

    def after(self, step: int, outputs: object = None) -> bool:
        """Stop the trace if `step` is the window's last, once `outputs` are computed; True if it was stopped here."""
        if not self._running or self._steps is None or step < self._steps[1]:
            return False
        import jax

        jax.block_until_ready(outputs)
        self.close()
        return True

    def close(self) -> None:
        """Stop a trace that is still running, as when a run ends inside its window."""
        if self._running:
            import jax

            jax.profiler.stop_trace()
            self._running = False
