"""Where the project and what lies beside it are."""

from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SHARED = PROJECT.parent / "shared"


def case_file(case: str, name: str) -> Path:
    """A file that the product once got wrong, or a skip that says so."""
    path = SHARED / "cases" / case / name
    if not path.exists():
        pytest.skip(f"the cases are absent: {path} does not exist")
    return path
