"""Whether a server on the network answers at all: asked before a library is used that would try again and again for minutes."""

import functools
import os
import socket
import threading
import urllib.request
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit

REACH_SECONDS = 8.0
"""How long a try may take."""
GOOGLE_STORAGE = "https://storage.googleapis.com"


def check_google_storage() -> None:
    """Once it was reached, that is known. A proxy may know a way where there is none from here. There is one try, so that a
    place out of reach is told at once: what starts a run at boot has to wait for the network.

    Raises:
      OSError: no connection comes about; in words.
    """
    given = os.environ.get("STORAGE_EMULATOR_HOST", "")
    place = urlsplit(given if "://" in given else f"http://{given}" if given not in ("", "default") else GOOGLE_STORAGE)
    host, port = place.hostname or "", place.port or (443 if place.scheme == "https" else 80)
    if not urllib.request.getproxies().keys() & {"http", "https", "all"}:
        _check(host, port)


@functools.cache
def _check(host: str, port: int) -> None:
    why_not = unreachable(host, port)
    if why_not is not None:
        raise OSError(f"no connection to {host}: {why_not}")


def unreachable(host: str, port: int, seconds: float | None = None) -> str | None:
    """Why no connection to a host comes about within some seconds, `REACH_SECONDS` by default; None where one does."""
    most = REACH_SECONDS if seconds is None else seconds
    answers: SimpleQueue[str | None] = SimpleQueue()
    reasons: list[str] = []

    def connect(address: tuple[str, int]) -> None:
        try:
            socket.create_connection(address, timeout=most).close()
        except OSError as error:
            reasons.append(error.strerror or str(error))
        else:
            answers.put(None)

    def connect_to_any() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            answers.put(error.strerror or str(error))
            return
        trials = [threading.Thread(target=connect, args=(address[4][:2],), daemon=True) for address in found]
        for trial in trials:
            trial.start()
        for trial in trials:
            trial.join()
        answers.put(reasons[0] if len(reasons) == len(found) else None)

    # In a thread: to look a name up has no time limit of its own.
    threading.Thread(target=connect_to_any, daemon=True).start()
    try:
        return answers.get(timeout=most)
    except Empty:
        return f"no answer within {most:g} s"
