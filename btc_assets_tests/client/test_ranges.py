"""A range is what a person means by it, in UTC; what is none is refused in one sentence."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.client.ranges import TimeRange, format_moment, parse_moment, parse_range
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, MICROSECOND, Window

DAY_10 = datetime(2024, 1, 10, tzinfo=UTC)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "start", "end"),
    [
        ("2024-01-10", DAY_10, DAY_10 + DAY),
        (date(2024, 1, 10), DAY_10, DAY_10 + DAY),
        ("2024-01", datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)),
        ("2023-12", datetime(2023, 12, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)),
        ("2024", datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)),
        (("2024-01-10", "2024-01-12"), DAY_10, DAY_10 + 2 * DAY),
        (("2024-01-10", "2024-01-12T13:35"), DAY_10, datetime(2024, 1, 12, 13, 35, tzinfo=UTC)),
        (["2024-01-10T01:00+01:00", "2024-01-10T00:00:00.000001"], DAY_10, DAY_10 + timedelta(microseconds=1)),
        ((datetime(2024, 1, 10), date(2024, 1, 11)), DAY_10, DAY_10 + DAY),  # a naive time is UTC
        ((datetime(2024, 1, 10, 2, tzinfo=timezone(timedelta(hours=2))), "2024-01-10T06:00Z"), DAY_10, DAY_10 + DAY / 4),
        ((pd.Timestamp("2024-01-10"), np.datetime64("2024-01-11")), DAY_10, DAY_10 + DAY),
        (Window(DAY_10, DAY_10 + DAY), DAY_10, DAY_10 + DAY),
        # Nanoseconds between two microseconds: what lies at the first of them is before both ends.
        (("2024-01-10", np.datetime64("2024-01-11T00:00:00.000000001")), DAY_10, DAY_10 + DAY + MICROSECOND),
        ((pd.Timestamp("2024-01-10T00:00:00.000000999"), "2024-01-11"), DAY_10 + MICROSECOND, DAY_10 + DAY),
        (TimeRange(DAY_10, DAY_10 + DAY), DAY_10, DAY_10 + DAY),
    ],
)
def test_a_range_is_what_a_person_means_by_it(value: object, start: datetime, end: datetime) -> None:
    assert parse_range(value, NOW) == TimeRange(start, end)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("yesterday", "'yesterday' is not a date or time: write it as 2020-02-22 or 2020-02-22T13:35Z."),
        ("2024-13", "'2024-13' is no month or year: write a day"),
        ("2024-01-10T12:00", "'2024-01-10T12:00' is one moment and no range: write a day"),
        (("2024-01-10",), "is no range, because it has 1 parts: write a day"),
        (12, "12 is no range: write a day"),
        ((pd.NaT, "2024-01-10"), "NaT is no time: write"),
        ((np.datetime64("NaT", "us"), "2024-01-10"), "is no time: write"),
        (("2024-01-10", np.datetime64("290000-01-01")), "is no time: write"),
        ((np.int64(1), "2024-01-10"), "is no time: write"),
        ((datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))), "2024-01-10"), "is no time: write"),
        ("9999-12-31", "The range from 9999-12-31 to 9999-12-31T23:59:59.999999Z lies in the future"),
        (date.max, "lies in the future"),
        ((1, 2), "1 is no time: write 2024-01-10 or 2024-01-10T13:35Z, or pass a date or datetime."),
        (("2024-01-10", "2024-01-10"), "The range from 2024-01-10 to 2024-01-10 is empty: its end, which is exclusive, must lie after"),
        (("2024-01-12", "2024-01-10T06:00"), "The range from 2024-01-12 to 2024-01-10T06:00Z is reversed: its end, which is"),
        (("2026-01-02", "2026-01-03"), "The range from 2026-01-02 to 2026-01-03 lies in the future, where nothing is stored: name an"),
    ],
)
def test_what_is_no_range_is_one_sentence(value: object, sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_range(value, NOW)
    assert sentence in str(raised.value) and str(raised.value).endswith(".") and "\n" not in str(raised.value)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_a_time_that_is_written_reads_back(moment: datetime) -> None:
    assert parse_moment(format_moment(moment)) == moment
