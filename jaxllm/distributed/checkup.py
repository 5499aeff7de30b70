"""Can this process reach the others? For `jaxllm doctor`."""

import socket

from jaxllm.distributed.hosts import Hosts


def check_coordinator(hosts: Hosts, *, seconds: float = 5.0) -> str | None:
    """What stands in the way of a connection to the coordinator; None where it answers, and for process 0 where its port is
    free."""
    host, port = hosts.address
    if hosts.process_index == 0:
        try:
            socket.create_server(("", port)).close()
        except OSError as error:
            return f"process 0 cannot listen on port {port}: {error.strerror}"
        return None
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError as error:
        return f"{hosts.coordinator} cannot be reached: {error.strerror or error or type(error).__name__}"
    return None
