"""Waiting for a condition instead of for a number of seconds, and ports that nobody listens on."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], seconds: float = 30, what: str = "the condition") -> None:
    """Wait until a condition holds.

    Args:
        condition: evaluated ten times a second.
        seconds: after which the test fails; generous, because the machine may be busy.
        what: holds then, for the message.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not hold within {seconds:.0f} s"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback interface that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def free_port() -> int:
    """One such port."""
    (port,) = free_ports(1)
    return port
