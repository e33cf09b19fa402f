"""Where the project and what lies beside it are."""

from pathlib import Path

PROJECT = Path(__file__).parents[2]
SHARED = PROJECT.parent / "shared"
