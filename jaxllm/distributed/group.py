"""This process among the others of its run: one thread that listens, on process 0 also the `Leader` that decides.

    process k  -- alive, part, stop, at, busy, failed -->  process 0
    process k  <-- alive, all, ask, stop_at, busy, over --  process 0

| message | says |
|---|---|
| `alive` | where the main thread is: step and what it does |
| `part`, `all` | one text of each process, and all of them: `gather` |
| `stop`, `ask`, `at`, `stop_at` | a request to stop; where is everyone?; here; all stop after this step |
| `busy` | whether this process is in a run: outside one it may leave |
| `failed`, `over` | this process failed; the run is over, and why |
"""

import contextlib
import faulthandler
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from jaxllm.distributed.leader import DONE, LOST_SECONDS, PULSE_SECONDS, Leader, Place
from jaxllm.distributed.line import Line, Message, readable

VERDICT_SECONDS = 40.0
"""How long a process whose connections broke waits for process 0 to say which process is gone."""
LAST_WORDS_SECONDS = 20.0
"""How long a process that failed may go on, to close what it has open and to say what happened."""
LEAVING_SECONDS = 1.0
"""How long it has then to end by itself."""
OTHERS_SECONDS = 10.0
"""How long process 0 waits for the others to end before it does: with it goes JAX's service, and what still needs that is
ended from C++, in the middle of its last words."""


def leave(code: int) -> None:
    """Ends this process at once, whatever its threads wait for."""
    for child in multiprocessing.active_children():
        child.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Group:
    """The processes of a run, seen from this one. The main thread calls; one thread of its own listens.

    Args:
      index: which process this is.
      names: the host of each process.
      lines: the connections to the others for process 0, to process 0 for the others.
      leave: ends this process with an exit code.
    """

    def __init__(self, index: int, names: list[str], lines: Mapping[int, Line], leave: Callable[[int], Any] = leave):
        self._leave = leave
        self.index = index
        self.names = names
        self._lines = dict(lines)
        self._changed = threading.Condition()
        self._leader = Leader(names, self._tell) if index == 0 else None
        self._place = Place()
        self._leader_seen = time.monotonic()
        self._leader_busy = True
        self._gathered: dict[int, list[str]] = {}
        self._calls = 0
        self._frozen = False
        self._step = -1
        self._asked = False
        self._stop: tuple[int, str] | None = None
        self._over = False
        self.step_seconds: float | None = None
        """How long all processes may stay at one place before the run counts as hung; None: for ever."""
        self.phase_seconds: float | None = None
        """The same for a place that takes long."""
        threading.Thread(target=self._listen, name="distributed", daemon=True).start()

    @property
    def count(self) -> int:
        return len(self.names)

    def gather(self, text: str) -> list[str]:
        """What each process gave, by process; all of them call it, in the same order."""
        with self._changed:
            number, self._calls = self._calls, self._calls + 1
        self._post({"part": number, "text": text})
        with self._changed:
            self._changed.wait_for(lambda: number in self._gathered)
            return self._gathered.pop(number)

    def beat(self, step: int, doing: str, *, long: bool = False) -> None:
        """Where the main thread is. Cheap: it is sent by the other thread.

        Args:
          long: whether this has `phase_seconds`, not `step_seconds`.
        """
        limit = self.phase_seconds if long else self.step_seconds
        self._place = Place(step, doing, limit, self._place.beats + 1)

    def agreed_stop(self, step: int, wanted: str | None) -> str | None:
        """Why all processes stop after this step, once one of them wants to; the same answer on all of them.

        Costs a lock. While a stop is being agreed it waits, so that no process runs past the step.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._frozen)
            self._step = step
            asks = wanted is not None and not self._asked
            self._asked = self._asked or asks
            stop = self._stop
        if asks:
            self._post({"stop": wanted})
        return stop[1] if stop is not None and step >= stop[0] else None

    def set_busy(self, busy: bool) -> None:
        """Whether this process takes part in a run; one that does not may end without a word."""
        self._place = Place() if busy else Place(doing=DONE)
        if busy:
            self._step, self._asked, self._stop = -1, False, None
            if self._leader is None and not self._lines:
                self._end(f"process 0 ({self.names[0]}), the coordinator, has ended and takes no part in another run")
        self._post({"busy": busy})

    def fail(self, error: BaseException) -> None:
        """Tells the others why this process ends. Where it ends because a connection broke, it is not to blame: process 0
        says which one is, and ends this process before the wait is over."""
        if self._over:
            return
        if _is_broken_connection(error):
            time.sleep(VERDICT_SECONDS)
        self._over = True
        words = " ".join(str(error).split()) or type(error).__name__
        told = words if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {words}"
        self._post({"failed": told[:2000]})
        code = 2 if isinstance(error, ValueError) else 1
        threading.Thread(target=self._end_with_main_thread, args=(code,), daemon=True).start()

    def _end_with_main_thread(self, code: int) -> None:
        """JAX would wait for the others before it lets a program end, and they are not coming."""
        threading.main_thread().join(LAST_WORDS_SECONDS)
        time.sleep(LEAVING_SECONDS)
        self._leave(code)

    def _post(self, message: Message) -> None:
        """To process 0."""
        if self._leader is not None:
            self._leader.hear(0, message)
        else:
            self._send(0, message)

    def _tell(self, index: int, message: Message) -> None:
        """From process 0 to another, or to itself."""
        if index == 0:
            self._hear(message)
        else:
            self._send(index, message)

    def _send(self, index: int, message: Message) -> None:
        """To a process that may be gone: the listening thread sees that, and knows what to do."""
        line = self._lines.get(index)
        if line is not None:
            with contextlib.suppress(OSError):
                line.send(message)

    def _listen(self) -> None:
        next_pulse = time.monotonic()
        while True:
            lines = {line: index for index, line in self._lines.items()}
            for line in readable(list(lines), next_pulse - time.monotonic()):
                self._read(lines[line], line)
            if time.monotonic() >= next_pulse:
                self._pulse()
                next_pulse = time.monotonic() + PULSE_SECONDS

    def _read(self, index: int, line: Line) -> None:
        try:
            messages = line.receive()
        except (EOFError, ValueError) as error:
            self._lose(index, str(error))
            return
        for message in messages:
            if self._leader is not None:
                self._leader.hear(index, message)
            else:
                self._hear(message)

    def _lose(self, index: int, reason: str) -> None:
        line = self._lines.pop(index, None)
        if line is None:
            return
        line.close()
        if self._leader is not None:
            self._leader.lose(index, reason)
        elif self._leader_busy and self._place.doing != DONE:
            self._end(f"process 0 ({self.names[0]}), the coordinator, is gone ({reason}): was it killed?")
        if not self._lines:
            threading.Event().wait()  # nobody left to listen to

    def _pulse(self) -> None:
        self._post({"alive": list(self._place)})
        if self._leader is not None:
            self._leader.judge()
            return
        silent, most = time.monotonic() - self._leader_seen, LOST_SECONDS
        if self._place.limit is not None:
            most = min(self._place.limit, most)
        if silent > most and self._lines and self._leader_busy and self._place.doing != DONE:
            self._end(f"process 0 ({self.names[0]}), the coordinator, has said nothing for {silent:.0f} s", stacks=True)

    def _hear(self, message: Message) -> None:
        """From process 0."""
        self._leader_seen = time.monotonic()
        if "over" in message:
            self._end(message["over"], stacks=message["stacks"])
        with self._changed:
            if "all" in message:
                self._gathered[message["all"]] = message["texts"]
            if "ask" in message:
                self._frozen = True
            if "stop_at" in message:
                self._stop, self._frozen = (message["stop_at"], message["why"]), False
            if "busy" in message:
                self._leader_busy = message["busy"]
            step = self._step
            self._changed.notify_all()
        if "ask" in message:
            self._post({"at": step})

    def _end(self, why: str, *, stacks: bool = False) -> None:
        """Ends this process, whatever its main thread waits for; unless it is ending by itself."""
        if self._over:
            return
        self._over = True
        place = self._place
        words = f"error: {why}\nprocess {self.index} ({self.names[self.index]}) was {place.words()} and stops"
        if stacks:
            print(f"the stacks of process {self.index}, {place.words()}:", file=sys.stderr, flush=True)
            faulthandler.dump_traceback(all_threads=True)
        print(words, file=sys.stderr, flush=True)
        self._wait_for_others()
        self._leave(1)

    def _wait_for_others(self) -> None:
        """Process 0 leaves after those that can still hear it."""
        if self._leader is None:
            return
        deadline = time.monotonic() + OTHERS_SECONDS
        silent = self._leader.silent()
        lines = {line: index for index, line in self._lines.items() if index not in silent}
        while lines and (left := deadline - time.monotonic()) > 0:
            for line in readable(list(lines), left):
                try:
                    line.receive()
                except (EOFError, ValueError):
                    lines.pop(line)


def _is_broken_connection(error: BaseException) -> bool:
    """Whether an error of a collective says that another process does not answer."""
    words = ("Gloo", "UNAVAILABLE", "Connection reset", "Connection closed", "Socket closed", "heartbeat", "Barrier timed out")
    return isinstance(error, ValueError | RuntimeError) and any(word in str(error) for word in words)
