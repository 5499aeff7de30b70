"""One connection between two processes: messages as JSON, one a line."""

import json
import select
import socket
import threading
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

Message = dict[str, Any]

SEND_SECONDS = 20.0
DEAD_AFTER_SECONDS = 25
"""A host that lost power or network says nothing; after this long without an answer the kernel gives the connection up."""


@runtime_checkable
class HasFileno(Protocol):
    """An open file, as the system knows it."""

    def fileno(self) -> int: ...


class Line:
    """A connection on which any thread may send, and one thread receives."""

    def __init__(self, connection: socket.socket):
        self._socket = connection
        self._sending = threading.Lock()
        self._rest = b""
        connection.settimeout(SEND_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        settings = {
            "TCP_KEEPIDLE": DEAD_AFTER_SECONDS - 15,
            "TCP_KEEPINTVL": 5,
            "TCP_KEEPCNT": 3,
            "TCP_USER_TIMEOUT": DEAD_AFTER_SECONDS * 1000,
        }
        for name, value in settings.items():
            if hasattr(socket, name):  # Linux has them all
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Raises OSError where the other side is gone."""
        data = json.dumps(message).encode() + b"\n"
        with self._sending:
            self._socket.sendall(data)

    def receive(self) -> list[Message]:
        """The whole messages that have come; waits for some bytes.

        Raises:
          EOFError: the other side is gone.
          ValueError: what came is no message.
        """
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            return []
        except OSError as error:
            raise EOFError(str(error)) from None
        if not data:
            raise EOFError("closed")
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [_message(line) for line in lines]

    def close(self) -> None:
        self._socket.close()


S = TypeVar("S", bound=HasFileno)


def readable(sources: Sequence[S], seconds: float) -> list[S]:
    """Those on which something has come, or that were closed, once there are any or the time is over."""
    poll, by_number = select.poll(), {}  # not select, which ends at 1,024 open files
    for source in sources:
        by_number[source.fileno()] = source
        poll.register(source.fileno(), select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(max(0.0, seconds) * 1000)]


def _message(line: bytes) -> Message:
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("a message is a JSON object")
    return message
