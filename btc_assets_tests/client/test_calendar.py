"""Calendars: where a day is shown, and the picture."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.client.calendar import MARKS, WEEKDAYS, Calendar, plot_calendars
from btc_assets.ops.coverage import DayState

DAYS = st.dates(date(2009, 1, 3), date(2100, 1, 1))


def test_every_state_of_a_day_has_a_mark_of_its_own() -> None:
    assert set(MARKS) == {state.value for state in DayState}
    for part in ("letter", "color", "style"):
        assert len({getattr(mark, part) for mark in MARKS.values()}) == len(MARKS)


@given(DAYS, st.integers(0, 1500))
def test_each_day_has_a_place_of_its_own_under_its_weekday(first: date, length: int) -> None:
    calendar = Calendar("BTCUSDT", first, first + timedelta(length), {})
    places = [calendar.place(day) for day, _ in calendar.days()]
    assert places == sorted(places) and len(set(places)) == length + 1
    assert all(WEEKDAYS[place[1]] == f"{day:%a}" for place, (day, _) in zip(places, calendar.days(), strict=True))
    assert places[0][0] == 0 and places[-1][0] == calendar.weeks - 1


@given(DAYS, st.integers(0, 1500))
def test_years_hold_each_day_once(first: date, length: int) -> None:
    calendar = Calendar("BTCUSDT", first, first + timedelta(length), {first: "gaps"})
    years = calendar.years()
    assert [day for year in years for day in year.days()] == list(calendar.days())
    assert all(year.weeks <= 54 for year in years)
    assert sum(count for year in years for count in year.counts().values()) == length + 1


@pytest.mark.parametrize("length", [1, 40, 800])
def test_a_picture_has_a_panel_for_each_year(length: int) -> None:
    calendar = Calendar("BTCUSDT", date(2024, 1, 10), date(2024, 1, 10) + timedelta(length), {date(2024, 1, 11): "rejected"})
    png = plot_calendars([calendar])
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[20:24], "big") > 200 * len(calendar.years())  # its height
