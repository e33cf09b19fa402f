"""The SQL files below `sql/`: numbered migrations, and repeatable files that hold the current definition of one object each.

`sql/README.md` says how the folder is organized. This module reads and orders the files; `migrations` applies them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from btc_assets.domain.errors import UserError

_PACKAGE = Path(__file__).parents[1]
# Beside the package in a checkout and an editable install, inside it in a wheel.
SQL_DIR = _PACKAGE / "sql" if (_PACKAGE / "sql").is_dir() else _PACKAGE.parent / "sql"

_NUMBERED_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_REPEATABLE_NAME = re.compile(r"^[a-z_]+\.[a-z0-9_]+\.sql$")
_REQUIRES = re.compile(r"^-- Requires: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class SqlFile:
    """A file of SQL statements; `name` is its file name without `.sql`."""

    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Migration(SqlFile):
    """A numbered file, such as `0002_landing`. It is applied once and never changes afterwards."""

    version: int


@dataclass(frozen=True)
class Repeatable(SqlFile):
    """The definition of one view, function or procedure; `name` is the object's, such as `landing.slices`."""

    @property
    def requires(self) -> frozenset[str]:
        """Names of the objects that must exist before this one, from the lines `-- Requires: ops.chunks, ...`."""
        return frozenset(name.strip() for line in _REQUIRES.findall(self.text) for name in line.split(","))


def read_migrations(engine_name: str, directory: Path = SQL_DIR) -> list[Migration]:
    """Read the numbered files of one engine, in the order of their numbers.

    Raises:
        UserError: two files have the same number, a number is missing, or a file has no number.
    """
    found: dict[int, Migration] = {}
    for path in _paths(directory, engine_name):
        match = _NUMBERED_NAME.match(path.name)
        if match is None:
            raise UserError(f"{path} is not a migration: name it like 0007_what_it_does.sql.")
        version = int(match[1])
        if version in found:
            raise UserError(f"{path} and {found[version].name} have the same number: give one of them the next free one.")
        found[version] = Migration(path.stem, path.read_text(), version)
    for expected, version in enumerate(sorted(found), start=1):
        if version != expected:
            raise UserError(f"Migration {expected:04d} is missing in {directory}: restore it from version control.")
    return [found[version] for version in sorted(found)]


def read_repeatables(engine_name: str, directory: Path = SQL_DIR) -> list[Repeatable]:
    """Read the repeatable files of one engine, each after the files that it requires and otherwise by name.

    Raises:
        UserError: a file is not named after an object, two files define the same object, or the files cannot be ordered.
    """
    found: dict[str, Repeatable] = {}
    for path in _paths(directory, engine_name, "repeatable"):
        if _REPEATABLE_NAME.match(path.name) is None:
            raise UserError(f"{path} is not named after the object that it defines: name it like landing.slices.sql.")
        if path.stem in found:
            raise UserError(f"{path} defines {path.stem}, and so does another repeatable file: remove one of them.")
        found[path.stem] = Repeatable(path.stem, path.read_text())
    return [found[name] for name in _ordered(found.values())]


def _paths(directory: Path, engine_name: str, *below: str) -> Iterator[Path]:
    for folder in ("common", engine_name):
        yield from sorted(directory.joinpath(folder, *below).glob("*.sql"))


def _ordered(files: Iterable[Repeatable]) -> list[str]:
    requires = {file.name: file.requires for file in files}
    for name, required in requires.items():
        if unknown := required - requires.keys():
            raise UserError(f"{name}.sql requires {min(unknown)}, which no repeatable file defines: correct its line '-- Requires:'.")
    sorter = TopologicalSorter(requires)
    order: list[str] = []
    try:
        sorter.prepare()
    except CycleError as error:
        raise UserError(
            f"Repeatable files require each other ({' -> '.join(error.args[1])}): remove one of these '-- Requires:'."
        ) from None
    while ready := sorted(sorter.get_ready()):
        order += ready
        sorter.done(*ready)
    return order
