"""Waiting for a condition instead of for a number of seconds, and ports that nobody listens on."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

# When a wait is hopeless. No test depends on it: it only ends a test that would hang, so a busy machine must not reach it.
PATIENCE_SECONDS = 600


def wait_for(
    condition: Callable[[], object], what: str = "the condition", *, seconds: float = PATIENCE_SECONDS, interval: float = 0.05
) -> None:
    """Wait until a condition holds.

    Args:
        condition: evaluated until it is true.
        what: holds then, for the message.
        seconds: after which the test fails; give it only where the work itself takes longer than the default.
        interval: seconds between two evaluations.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not hold within {seconds:.0f} s"
        time.sleep(interval)


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
