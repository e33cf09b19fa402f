"""Slices and windows of them, and the two ways in which times are held."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import (
    DAY,
    DAY_US,
    EPOCH,
    HOUR_US,
    SLICE,
    SLICE_US,
    Window,
    ceil_slice,
    floor_slice,
    from_microseconds,
    parse_time,
    slice_number,
    to_microseconds,
)  # fmt: skip

times = st.datetimes(datetime(2009, 1, 3), datetime(2099, 12, 31), timezones=st.just(UTC))
starts = times.map(floor_slice)
windows = st.builds(lambda start, slices: Window(start, start + slices * SLICE), starts, st.integers(1, 2000))


@given(times)
def test_a_time_lies_in_the_slice_that_starts_at_its_floor(time: datetime) -> None:
    assert time in Window.of_slice(floor_slice(time))
    assert ceil_slice(time) - floor_slice(time) in (timedelta(0), SLICE)


@given(windows)
def test_days_split_a_window_without_gap_or_overlap(window: Window) -> None:
    days = list(window.days())
    assert [days[0].start, *(day.end for day in days)] == [*(day.start for day in days), window.end]
    assert all((day.start - EPOCH) // DAY == (day.end - timedelta(microseconds=1) - EPOCH) // DAY for day in days)
    assert sum(map(len, days)) == len(window)


@given(windows, st.sampled_from([SLICE, timedelta(hours=1), DAY]))
def test_widening_to_a_step_is_the_smallest_aligned_window_around(window: Window, step: timedelta) -> None:
    wide = window.widened_to(step)
    assert wide.start <= window.start < wide.start + step
    assert wide.end - step < window.end <= wide.end
    assert (wide.start - EPOCH) % step == (wide.end - EPOCH) % step == timedelta(0)


@given(starts)
def test_slice_numbers_follow_each_other_and_fit_32_bits(start: datetime) -> None:
    assert slice_number(start + SLICE) == slice_number(start) + 1 < 2**31


@given(times)
def test_times_survive_as_microseconds_since_1970_also_as_numpy_holds_them(time: datetime) -> None:
    assert from_microseconds(to_microseconds(time)) == from_microseconds(np.int64(to_microseconds(time))) == time  # type: ignore[arg-type]  # columns give NumPy's
    assert to_microseconds(EPOCH) == 0


def test_spans_in_microseconds_are_those_of_times() -> None:
    assert [to_microseconds(EPOCH + span) for span in (SLICE, timedelta(hours=1), DAY)] == [SLICE_US, HOUR_US, DAY_US]


@pytest.mark.parametrize(
    "text",
    ["2020-02-22T13:35Z", "2020-02-22T13:35", "2020-02-22 13:35:00+00:00", "2020-02-22T14:35+01:00"],
)
def test_times_are_read_as_utc_unless_they_say_otherwise(text: str) -> None:
    assert parse_time(text) == datetime(2020, 2, 22, 13, 35, tzinfo=UTC)


def test_text_that_is_not_a_time_is_refused() -> None:
    with pytest.raises(UserError, match=r"^'yesterday' is not a date or time: write it as 2020-02-22 or 2020-02-22T13:35Z\.$"):
        parse_time("yesterday")


def test_windows_start_and_end_on_slices_and_are_not_empty() -> None:
    noon = datetime(2024, 1, 10, 12, tzinfo=UTC)
    with pytest.raises(UserError, match="is not the start of a 5-minute slice in UTC"):
        Window(noon, noon + timedelta(minutes=7))
    with pytest.raises(UserError, match="is empty"):
        Window(noon, noon)
