"""What process 0 knows of all processes, and what it decides for them."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from jaxllm.distributed.line import Message

PULSE_SECONDS = 2.0
"""Between two signs of life of a process."""
SILENT_SECONDS = 5 * PULSE_SECONDS
"""After this long without one, a process is called silent where somebody has to be named."""

LOST_SECONDS = 40.0
"""After this long without one, the process is stopped or out of reach: even while it compiles, its other thread says so."""

STARTING, DONE = "starting", "in no run"
"""Where a process is before it has said so in a run, and outside of one."""

RESTART = "start all processes again to go on from the newest checkpoint"


class Place(NamedTuple):
    """Where the main thread of a process is."""

    step: int = 0
    """The step it works on; 0 before the first."""
    doing: str = STARTING
    """In a few words."""
    limit: float | None = None
    """Seconds after which, with no process moving, that counts as hung; None: not said."""
    beats: int = 0
    """Counts up with each sign that the main thread goes on."""

    def words(self) -> str:
        return f"{self.doing} (step {self.step})" if self.step else self.doing


class Leader:
    """The others' messages come in through `hear` and `lose`; what it decides goes out through `tell(index, message)`."""

    def __init__(self, names: list[str], tell: Callable[[int, Message], None]):
        self._names = names
        self._tell = tell
        self._lock = threading.RLock()
        self._parts: dict[int, dict[int, str]] = {}
        self._why: str | None = None
        self._at: dict[int, int] = {}
        self._idle: set[int] = set()
        self._left: list[int] = []
        self._over = False
        now = time.monotonic()
        self._places = [Place() for _ in names]
        self._moved = [now] * len(names)
        self._heard = [now] * len(names)

    def hear(self, index: int, message: Message) -> None:
        """A message of process `index`."""
        with self._lock:
            self._heard[index] = time.monotonic()
            if "alive" in message:
                self._note_place(index, Place(*message["alive"]))
            if "part" in message:
                self._note_part(index, message["part"], message["text"])
            if "stop" in message and self._why is None:
                self._why = message["stop"] if index == 0 else f"{message['stop']} (process {index}, {self._names[index]})"
                self._at = {}
                self._tell_all({"ask": True})
            if "at" in message:
                self._at[index] = message["at"]
                if len(self._at) == len(self._names):
                    self._tell_all({"stop_at": max(self._at.values()) + 1, "why": self._why})
            if "busy" in message:
                self._note_busy(index, message["busy"])
            if "failed" in message:
                self.end(f"{self._who(index)} failed: {message['failed']}", but=index)

    def lose(self, index: int, reason: str) -> None:
        """The connection of process `index` is gone."""
        with self._lock:
            if index in self._idle:
                self._left.append(index)
                return
            told = f"{self._who(index)} is gone ({reason}), while it was {self._places[index].words()}"
            self.end(f"{told}: was it killed, or its host lost? {RESTART}", but=index)

    def judge(self) -> None:
        """Looks whether the run hangs: nobody has moved, and everybody should have; or nothing is heard of one."""
        with self._lock:
            now = time.monotonic()
            self._tell_all({"alive": True})
            stuck = now - max(self._moved)
            if stuck >= self._longest(now):
                self.end(f"no process has moved for {stuck:.0f} s: {self._missing()}. {RESTART}", stacks=True)
            lost = [index for index in self.silent(LOST_SECONDS) if index not in self._idle]
            if lost:
                told = f"{self._who(lost[0])} has said nothing for {now - self._heard[lost[0]]:.0f} s"
                where = f"since it was {self._places[lost[0]].words()}: is it stopped, or its network lost?"
                self.end(f"{told}, {where} {RESTART}", stacks=True)

    def silent(self, seconds: float = SILENT_SECONDS) -> list[int]:
        """Processes of which nothing was heard for so long."""
        now = time.monotonic()
        return [index for index, heard in enumerate(self._heard) if now - heard > seconds]

    def end(self, why: str, *, but: int | None = None, stacks: bool = False) -> None:
        """The run is over: everybody hears why, but the one that knows; process 0 last, since it ends with it."""
        if self._over:
            return
        self._over = True
        for index in reversed(range(len(self._names))):
            if index != but:
                self._tell(index, {"over": why, "stacks": stacks})

    def _longest(self, now: float) -> float:
        """For how long all processes together may not move: what the slowest of their places takes. One that does not even say
        where it is has no longer than the others, nor has one that is still on its way into the run or that is in none while
        others wait for it. Before any process has said how long it may take (`limit_time`) there is no limit."""
        limits = [place.limit for place in self._places if place.limit is not None]
        if not limits:
            return math.inf

        def own(place: Place, heard: float) -> float:
            if now - heard >= min(limits):
                return min(limits)
            return max(limits) if place.limit is None else place.limit

        return max(map(own, self._places, self._heard))

    def _who(self, index: int) -> str:
        return f"process {index} ({self._names[index]})"

    def _tell_all(self, message: Message) -> None:
        for index in reversed(range(len(self._names))):
            self._tell(index, message)

    def _note_place(self, index: int, place: Place) -> None:
        if place.beats != self._places[index].beats:
            self._moved[index] = time.monotonic()
        self._places[index] = place

    def _note_part(self, index: int, number: int, text: str) -> None:
        parts = self._parts.setdefault(number, {})
        parts[index] = text
        if len(parts) == len(self._names):
            del self._parts[number]
            self._tell_all({"all": number, "texts": [parts[index] for index in range(len(parts))]})

    def _note_busy(self, index: int, busy: bool) -> None:
        self._idle.difference_update({index}) if busy else self._idle.add(index)
        if busy and self._left:
            self.end(f"{self._who(self._left[0])} has ended and takes no part in another run. {RESTART}")
        if index == 0:
            self._why = None
            self._tell_all({"busy": busy})

    def _missing(self) -> str:
        """Which process the others wait for: one that is silent, or is not where most are."""
        silent = self.silent()
        if silent:
            lost = ", ".join(f"{self._who(i)}, silent since it was {self._places[i].words()}" for i in silent)
            return f"the others wait for {lost}"
        most, number = Counter(place[:2] for place in self._places).most_common(1)[0]
        others = [index for index, place in enumerate(self._places) if place[:2] != most]
        if not others or 2 * number <= len(self._names):
            each = "; ".join(f"{self._who(i)}: {place.words()}" for i, place in enumerate(self._places))
            return f"a device or the network hangs ({each})" if not others else each
        lost = ", ".join(f"{self._who(i)}, which is {self._places[i].words()}" for i in others)
        return f"{Place(*most).words()}, the others wait for {lost}"
