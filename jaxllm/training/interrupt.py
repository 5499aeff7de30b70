"""A request to stop: SIGTERM from a scheduler, SIGINT from a keyboard, a notice from the cloud."""

import signal
import threading
from types import FrameType

from jaxllm.distributed import Notice, agreed_stop

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupt:
    """Notes a stop signal, or that the cloud is about to take the machine away, so that the loop can finish its step and save.
    A second signal acts at once.

    with Interrupt() as interrupt:
        while not interrupt.after(step): ...
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        """Name of the signal that came to this process, or what the cloud announced; None: nothing did."""
        self._before: dict[int, object] = {}
        self._notice: Notice | None = None

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        self._notice = Notice(self._announced)
        return self

    def __exit__(self, *_) -> None:
        if self._notice is not None:
            self._notice.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def after(self, step: int) -> str | None:
        """Why the run stops after this step, or None; the same on all processes of a run, whichever of them was asked. To be
        called once a step."""
        return agreed_stop(step, self.requested)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number).name
        for each, handler in self._before.items():
            signal.signal(each, handler)  # type: ignore[arg-type]

    def _announced(self, event: str) -> None:
        self.requested = self.requested or event
