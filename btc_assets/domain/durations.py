"""Durations in words."""

from __future__ import annotations

from datetime import datetime


def format_age(time: datetime, now: datetime) -> str:
    """The time since `time` in its two largest units: `6 min 12 s`, `3 h 5 min`, `2 d 4 h`."""
    seconds = max(int((now - time).total_seconds()), 0)
    for large, small, size in (("d", "h", 86_400), ("h", "min", 3600), ("min", "s", 60)):
        if seconds >= size:
            rest = seconds % size // {"h": 3600, "min": 60, "s": 1}[small]
            return f"{seconds // size} {large} {rest} {small}"
    return f"{seconds} s"
