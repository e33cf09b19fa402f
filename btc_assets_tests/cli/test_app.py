"""What commands share."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from btc_assets.cli.app import App, new_table, parse_window, progress_bar, save_picture
from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets_tests.support.stores import StoreUnderTest

DAY, NEXT_DAY = datetime(2024, 1, 10, tzinfo=UTC), datetime(2024, 1, 11, tzinfo=UTC)


def test_an_app_takes_its_settings_from_the_environment_or_from_its_caller(store: StoreUnderTest) -> None:
    assert App().store.dsn == store.dsn
    assert App(Settings(dsn="postgresql://other/btc")).store.dsn == "postgresql://other/btc"


def test_dagster_home_is_created_and_set_for_child_processes(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    home = App().prepare_dagster()
    assert home == store.home / "dagster" and (home / "dagster.yaml").exists() and os.environ["DAGSTER_HOME"] == str(home)


@pytest.mark.parametrize(
    ("start", "end", "window"),
    [
        (None, None, "2024-01-10T00:00Z to 2024-01-11T00:00Z"),
        ("2024-01-10T12:00Z", None, "2024-01-10T12:00Z to 2024-01-11T00:00Z"),
        (None, "2024-01-10T06:02Z", "2024-01-10T00:00Z to 2024-01-10T06:05Z"),
        ("2024-03-01", None, "2024-03-01T00:00Z to 2024-03-01T00:05Z"),
    ],
    ids=["no end given", "start", "end, within a slice", "a start after the default end"],
)
def test_an_end_of_a_range_that_is_not_given_has_a_default(start: str | None, end: str | None, window: str) -> None:
    assert str(parse_window(start, end, DAY, NEXT_DAY)) == window


def test_a_picture_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png", b"png")
    assert (tmp_path / "a.png").read_bytes() == b"png"
    with pytest.raises(UserError, match=r"^The picture .*/none/a\.png cannot be written \(No such file or directory\): name a file in"):
        save_picture(tmp_path / "none" / "a.png", b"png")


def test_numbers_are_aligned_to_the_right() -> None:
    table = new_table("table", "rows", "note", numbers=slice(1, 2))
    assert [column.justify for column in table.columns] == ["left", "right", "left"]


def test_each_stage_has_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("loading") as advance:
        for stage, done, total in [("objects", 1, 2), ("objects", 2, 2), ("slices", 7, 0)]:
            advance(stage, done, total)
    printed = capsys.readouterr().err
    assert "objects" in printed and "2/2" in printed and "slices" in printed and "7/7" in printed
