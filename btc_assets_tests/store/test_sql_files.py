"""The files below `sql/`: how they must be named, and in which order they are read."""

import shutil
from pathlib import Path

import pytest

from btc_assets.domain.errors import UserError
from btc_assets.store.sql_files import SQL_DIR, read_migrations, read_repeatables

ENGINES = ["postgres", "timescale"]


@pytest.fixture
def sql_dir(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SQL_DIR, tmp_path / "sql"))


@pytest.fixture
def repeatable(tmp_path: Path) -> Path:
    """An empty folder for repeatable files that both engines share."""
    folder = tmp_path / "common" / "repeatable"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("engine", ENGINES)
def test_numbered_files_come_in_the_order_of_their_numbers(engine: str) -> None:
    versions = [migration.version for migration in read_migrations(engine)]
    assert versions == list(range(1, len(versions) + 1))


def test_a_number_used_twice_is_refused(sql_dir: Path) -> None:
    (sql_dir / "common" / "0002_again.sql").write_text("SELECT 1")
    with pytest.raises(UserError, match="have the same number: give one of them the next free one"):
        read_migrations("postgres", sql_dir)


def test_a_missing_number_is_refused(sql_dir: Path) -> None:
    (sql_dir / "common" / "0002_landing.sql").unlink()
    with pytest.raises(UserError, match=r"^Migration 0002 is missing in .*: restore it from version control\.$"):
        read_migrations("postgres", sql_dir)


def test_a_file_without_a_number_is_refused(sql_dir: Path) -> None:
    (sql_dir / "common" / "more_columns.sql").write_text("SELECT 1")
    with pytest.raises(UserError, match=r"more_columns\.sql is not a migration: name it like 0007_what_it_does\.sql\.$"):
        read_migrations("postgres", sql_dir)


def test_repeatable_files_come_by_name_but_after_what_they_require(repeatable: Path) -> None:
    (repeatable / "ops.apple.sql").write_text("-- Requires: ops.cherry, ops.banana\nSELECT 1;")
    (repeatable / "ops.banana.sql").write_text("-- A fruit.\n--\n-- Requires: ops.date\nSELECT 1;")
    for name in ("ops.cherry", "ops.date", "ops.elderberry"):
        (repeatable / f"{name}.sql").write_text("SELECT 1;")
    names = [file.name for file in read_repeatables("postgres", repeatable.parents[1])]
    assert names == ["ops.cherry", "ops.date", "ops.elderberry", "ops.banana", "ops.apple"]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_order_is_always_the_same(engine: str) -> None:
    files = read_repeatables(engine)
    assert files == read_repeatables(engine)
    seen: set[str] = set()
    for file in files:
        assert file.requires <= seen, f"{file.name} comes before what it requires"
        seen.add(file.name)


def test_files_that_require_each_other_are_refused(repeatable: Path) -> None:
    (repeatable / "ops.egg.sql").write_text("-- Requires: ops.hen\n")
    (repeatable / "ops.hen.sql").write_text("-- Requires: ops.egg\n")
    with pytest.raises(UserError, match=r"^Repeatable files require each other \(ops\.\w+ -> ops\.\w+ -> ops\.\w+\): remove one of"):
        read_repeatables("postgres", repeatable.parents[1])


def test_a_requirement_without_a_file_is_refused(repeatable: Path) -> None:
    (repeatable / "ops.egg.sql").write_text("-- Requires: ops.hen\n")
    with pytest.raises(UserError) as raised:
        read_repeatables("postgres", repeatable.parents[1])
    assert str(raised.value) == "ops.egg.sql requires ops.hen, which no repeatable file defines: correct its line '-- Requires:'."


def test_a_repeatable_file_is_named_after_its_object(sql_dir: Path) -> None:
    (sql_dir / "common" / "repeatable" / "0019_slices.sql").write_text("SELECT 1")
    with pytest.raises(
        UserError, match=r"0019_slices\.sql is not named after the object that it defines: name it like landing\.slices\.sql\.$"
    ):
        read_repeatables("postgres", sql_dir)


def test_an_object_defined_for_all_engines_and_again_for_one_is_refused(sql_dir: Path) -> None:
    shutil.copy(sql_dir / "common" / "repeatable" / "landing.slices.sql", sql_dir / "timescale" / "repeatable")
    read_repeatables("postgres", sql_dir)
    with pytest.raises(UserError, match=r"defines landing\.slices, and so does another repeatable file: remove one of them\.$"):
        read_repeatables("timescale", sql_dir)


def test_engines_that_differ_define_the_same_objects() -> None:
    # Plain PostgreSQL does not compress, and its loads make the candles that are refreshed ahead.
    only_timescale = {"ops.compress_chunk", "ops.decompress_chunk", "market_data.refresh_candles_ahead"}
    postgres, timescale = ({file.name for file in read_repeatables(engine)} for engine in ENGINES)
    assert timescale - postgres == only_timescale
    assert postgres <= timescale
