"""From due slices to run requests: contiguous, bounded, newest first, and nothing requested twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.domain.slices import DAY, SLICE, Window, floor_day
from btc_assets.ingestion.requests import RETRY_AFTER, DueSlice, Request, plan_requests
from btc_assets_tests.support.trades import NOON

MIDNIGHT = floor_day(NOON)
SOON = NOON + timedelta(minutes=1)  # less than any time in RETRY_AFTER since `due` says that slices are due
A_DAY_OF_SLICES = 288


def due(*numbers: int, digest: str = "1", since: datetime = NOON) -> list[DueSlice]:
    """Slices of the day of NOON by their number, 0 to 287; beyond that of the days after it, below 0 of those before."""
    return [DueSlice(MIDNIGHT + number * SLICE, since, digest) for number in sorted(numbers)]


def window(first: int, last: int) -> Window:
    """From slice `first` to slice `last`, both included."""
    return Window(MIDNIGHT + first * SLICE, MIDNIGHT + (last + 1) * SLICE)


def planned(
    slices: Sequence[DueSlice],
    *,
    busy: Sequence[Window] = (),
    now: datetime = SOON,
    at_most: int = A_DAY_OF_SLICES,
    step: timedelta = SLICE,
) -> list[Request]:
    return list(plan_requests(slices, busy, now, slices_per_run=at_most, step=step))


def windows(requests: Iterable[Request]) -> list[Window]:
    return [request.window for request in requests]


def test_without_due_slices_nothing_is_requested() -> None:
    assert planned([]) == []


def test_contiguous_slices_share_a_run() -> None:
    assert windows(planned(due(3, 4, 5))) == [window(3, 5)]


def test_slices_that_are_not_contiguous_have_runs_of_their_own_newest_first() -> None:
    assert windows(planned(due(1, 3, 4, 9))) == [window(9, 9), window(3, 4), window(1, 1)]


def test_a_backlog_is_cut_into_runs_of_bounded_length_from_its_newest_end() -> None:
    assert windows(planned(due(*range(10)), at_most=4)) == [window(6, 9), window(2, 5), window(0, 1)]


def test_slices_of_a_run_in_progress_are_not_requested() -> None:
    assert windows(planned(due(*range(10)), busy=[window(2, 3), window(7, 20)])) == [window(4, 6), window(0, 1)]


def test_the_key_names_the_first_slice_and_the_length() -> None:
    (request,) = planned(due(144, 145))
    assert request.key.startswith("2024-01-10T12:00Z 2 ")


def test_days_are_requested_as_a_whole() -> None:
    assert windows(planned(due(-288, -287, -1, 100), step=DAY)) == [window(0, 287), window(-288, -1)]


def test_a_day_that_a_run_in_progress_touches_waits_for_it() -> None:
    assert windows(planned(due(-1, 100), busy=[window(200, 200)], step=DAY)) == [window(-288, -1)]


@pytest.mark.parametrize(("at_most", "runs"), [(1, 3), (288, 3), (576, 2), (864, 1)])
def test_a_run_of_days_holds_at_least_one_and_no_more_slices_than_any_run(at_most: int, runs: int) -> None:
    assert len(planned(due(0, 288, 576), step=DAY, at_most=at_most)) == runs


def test_the_same_work_has_the_same_key_and_a_change_in_any_slice_another() -> None:
    (before,) = planned(due(1, 2, 3))
    (again,) = planned(due(1, 2, 3), now=SOON + timedelta(minutes=5))
    (new,) = planned(due(1, 3) + due(2, digest="2"))
    (longer,) = planned(due(1, 2, 3, 4))
    assert before == again
    assert len({before.key, new.key, longer.key}) == 3


def test_slices_that_stay_due_are_requested_again_at_growing_intervals() -> None:
    first: dict[str, timedelta] = {}
    for minutes in range(4 * 24 * 60):
        waited = timedelta(minutes=minutes)
        (request,) = planned(due(1), now=NOON + waited)
        first.setdefault(request.key, waited)
    assert list(first.values()) == [timedelta(0), *RETRY_AFTER, 2 * DAY, 3 * DAY]


def test_a_slice_that_keeps_failing_does_not_share_a_run_with_new_neighbors() -> None:
    failing, new = due(1, 2, since=NOON - RETRY_AFTER[0]), due(3, 4)
    assert windows(planned(failing + new, now=NOON)) == [window(3, 4), window(1, 2)]
    before, after = planned(failing, now=NOON), planned(failing + new, now=NOON)
    assert before[0].key == after[1].key  # nor is it requested again because of them


# ---- properties that hold for any due slices and any runs in progress

_numbers = st.integers(-600, 600)
_since = st.sampled_from([NOON, NOON - timedelta(hours=2)])
_due = st.dictionaries(_numbers, _since, max_size=80).map(lambda since: [due(n, since=since[n])[0] for n in sorted(since)])
_busy = st.lists(st.tuples(_numbers, st.integers(0, 300)).map(lambda pair: window(pair[0], sum(pair))), max_size=4)
_at_most = st.integers(1, 700)


@given(_due, _busy, _at_most)
def test_every_due_slice_that_is_not_busy_is_in_exactly_one_request_and_nothing_else_is(
    slices: list[DueSlice], busy: list[Window], at_most: int
) -> None:
    asked = [bucket for request in planned(slices, busy=busy, at_most=at_most) for bucket in request.window.slices()]
    assert sorted(asked) == [one.bucket for one in slices if not any(one.bucket in run for run in busy)]


@given(_due, _busy, _at_most)
def test_requests_are_bounded_and_disjoint_newest_first(slices: list[DueSlice], busy: list[Window], at_most: int) -> None:
    requests = windows(planned(slices, busy=busy, at_most=at_most))
    assert all(len(request) <= at_most for request in requests)
    assert all(older.end <= newer.start for newer, older in pairwise(requests))


@given(_due, _busy, _at_most)
def test_runs_of_days_are_whole_days_with_something_due_that_no_run_touches(
    slices: list[DueSlice], busy: list[Window], at_most: int
) -> None:
    requests = windows(planned(slices, busy=busy, at_most=at_most, step=DAY))
    days = [day for request in requests for day in request.days()]
    assert all(len(day) == A_DAY_OF_SLICES for day in days)
    wanted = {floor_day(one.bucket) for one in slices}
    free = {day for day in wanted if not any(run.start < day + DAY and day < run.end for run in busy)}
    assert sorted(day.start for day in days) == sorted(free)
    assert all(len(request) <= max(at_most, A_DAY_OF_SLICES) for request in requests)


@given(_due.filter(len), _at_most, st.data())
def test_a_change_in_a_slice_changes_the_key_of_its_own_request_and_no_other(
    slices: list[DueSlice], at_most: int, data: st.DataObject
) -> None:
    changed = data.draw(st.sampled_from(slices))
    news = [DueSlice(one.bucket, one.since, "new") if one is changed else one for one in slices]
    before, after = planned(slices, at_most=at_most), planned(news, at_most=at_most)
    assert windows(before) == windows(after)
    assert [old.window for old, new in zip(before, after, strict=True) if old.key != new.key] == [
        request.window for request in before if changed.bucket in request.window
    ]
