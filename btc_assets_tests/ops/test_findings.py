"""The findings that several examinations share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from btc_assets.domain.errors import UserError
from btc_assets.ops.findings import Finding, compare_clocks, examine_safely, find_free_space, format_bytes
from btc_assets_tests.support.trades import NOON


@pytest.mark.parametrize(
    ("free", "state", "text"),
    [
        (500 << 20, "problem", "524 MB of 107 GB free at /here; logs: free some space."),
        (5 << 30, "warning", "5 GB of 107 GB free at /here; logs: free some space soon."),
        (50 << 30, "ok", "54 GB of 107 GB free at /here; logs."),
    ],
    ids=["full", "almost full", "not full"],
)
def test_a_disk_that_fills_up_is_found(monkeypatch: pytest.MonkeyPatch, free: int, state: str, text: str) -> None:
    usage = SimpleNamespace(total=100 << 30, used=(100 << 30) - free, free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert find_free_space("disk", Path("/here"), "logs") == Finding("disk", state, text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "state", "text"),
    [
        (90, "problem", "90.0 s ahead of this machine: let NTP set both clocks."),
        (-90, "problem", "90.0 s behind this machine: let NTP set both clocks."),
        (-1, "ok", "agrees with this machine's."),
    ],
)
def test_clocks_that_differ_are_found(seconds: int, state: str, text: str) -> None:
    assert compare_clocks("server clock", NOON + timedelta(seconds=seconds), NOON) == Finding("server clock", state, text)  # type: ignore[arg-type]


def test_an_examination_that_fails_is_a_problem_after_what_it_found() -> None:
    def examine() -> Iterator[Finding]:
        yield Finding("landing zone", "ok", "one prefix is there.")
        raise UserError("The other is missing: create it.")

    assert list(examine_safely("landing zone", examine)) == [
        Finding("landing zone", "ok", "one prefix is there."),
        Finding("landing zone", "problem", "The other is missing: create it."),
    ]


@pytest.mark.parametrize(("size", "text"), [(999, "999 B"), (1000, "1 kB"), (2_500_000, "2 MB"), (1.5e15, "1,500.0 TB")])
def test_sizes_are_told_in_their_largest_unit(size: float, text: str) -> None:
    assert format_bytes(size) == text
