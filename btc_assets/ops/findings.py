"""What the doctor finds: one finding for each thing that it examines, and the findings that several examinations share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from btc_assets.domain.errors import UserError
from btc_assets.store.errors import server_errors

State = Literal["ok", "warning", "problem"]

_LITTLE_SPACE, _NO_SPACE = 10 << 30, 1 << 30  # bytes
_MAX_CLOCK_SECONDS = 2.0  # a slice is closed 90 s after its end; S3 refuses signatures 15 minutes off


@dataclass(frozen=True)
class Finding:
    """The state of one thing; if it is not ok, the text says what to do."""

    subject: str
    state: State
    text: str


def examine_safely(subject: str, examine: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of an examination; if it fails, the problem that stopped it."""
    try:
        with server_errors():
            yield from examine()
    except UserError as error:
        yield Finding(subject, "problem", str(error))


def find_free_space(subject: str, path: Path, note: str) -> Finding:
    """Whether the disk that holds `path` has enough free space.

    Args:
        subject: of the finding.
        path: that exists.
        note: what uses the space.
    """
    usage = shutil.disk_usage(path)
    text = f"{format_bytes(usage.free)} of {format_bytes(usage.total)} free at {path}; {note}"
    if usage.free < _NO_SPACE:
        return Finding(subject, "problem", f"{text}: free some space.")
    if usage.free < _LITTLE_SPACE:
        return Finding(subject, "warning", f"{text}: free some space soon.")
    return Finding(subject, "ok", f"{text}.")


def compare_clocks(subject: str, theirs: datetime, ours: datetime) -> Finding:
    """Whether another machine's clock agrees with this machine's."""
    seconds = (theirs - ours).total_seconds()
    # A server that sends whole seconds may seem up to one second slow.
    if abs(seconds) > _MAX_CLOCK_SECONDS:
        direction = "ahead of" if seconds > 0 else "behind"
        return Finding(subject, "problem", f"{abs(seconds):.1f} s {direction} this machine: let NTP set both clocks.")
    return Finding(subject, "ok", "agrees with this machine's.")


def format_bytes(size: float) -> str:
    """A size in its largest decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
