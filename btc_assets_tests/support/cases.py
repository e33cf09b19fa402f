"""Inputs of faults that were found, which lie beside the project: `../shared/cases`, one folder each with its `case.md`."""

from __future__ import annotations

from pathlib import Path

import pytest

from btc_assets_tests.support.paths import SHARED


def case(name: str) -> Path:
    """The folder of a case, such as `21-brackets`, or a skip that says that it is absent."""
    path = SHARED / "cases" / name
    if not path.is_dir():
        pytest.skip(f"the case is absent: {path} does not exist")
    return path
