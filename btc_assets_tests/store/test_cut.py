"""Parts are whole slices that together are exactly the window, about as large as asked for, and fit the lock table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, SLICE, Window
from btc_assets.domain.ticks import TIME
from btc_assets.store.cut import ArrowReplacements, cut_window
from btc_assets.store.locks import MAX_LOCKED_SLICES
from btc_assets.store.replace import Replacement
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON
from btc_assets_tests.support.wide_table import rows

LONG = Window(NOON, NOON + 3 * DAY)


def numbered(slices: list[int]) -> pa.Table:
    """A row for each slice number since noon."""
    starts = pa.array([NOON + number * SLICE for number in slices], TIME)
    return pa.table({"bucket_5m": starts, "n": pa.array(range(len(slices)), pa.int64())})


def assert_tiles(parts: list[Window], window: Window) -> None:
    assert [window.start, *(part.end for part in parts)] == [*(part.start for part in parts), window.end]
    assert all(len(part) <= MAX_LOCKED_SLICES for part in parts)


@given(st.dictionaries(st.integers(0, 863), st.integers(1, 500), max_size=60), st.integers(1, 1000))
def test_a_window_is_cut_into_parts_of_about_as_many_rows_as_asked_for(counts: dict[int, int], commit_rows: int) -> None:
    by_slice = [(NOON + number * SLICE, count) for number, count in sorted(counts.items())]
    parts = list(cut_window(by_slice, LONG, commit_rows))
    assert_tiles(parts, LONG)
    in_part = [[count for start, count in by_slice if start in part] for part in parts]
    assert all(sum(found) <= commit_rows or len(found) == 1 for found in in_part)


@given(st.lists(st.integers(0, 863), max_size=60), st.integers(1, 20), st.sampled_from(["table", "reader", "stream"]), st.integers(1, 7))
def test_arrow_data_is_cut_without_losing_a_row_or_splitting_a_slice(slices: list[int], commit_rows: int, kind: str, size: int) -> None:
    table = numbered(slices if kind == "table" else sorted(slices))
    batches = table.to_batches(max_chunksize=size)
    data = {"table": table, "reader": pa.RecordBatchReader.from_batches(table.schema, batches), "stream": iter(batches)}[kind]
    parts = list(ArrowReplacements(data, LONG, "bucket_5m", commit_rows))
    assert_tiles([part.window for part in parts], LONG)
    found = [row for part in parts for row in part.rows.to_pylist()]
    assert sorted(row["n"] for row in found) == list(range(len(slices)))
    assert all(row["bucket_5m"] in part.window for part in parts for row in part.rows.to_pylist())


def test_a_range_longer_than_a_day_without_rows_is_emptied_day_by_day() -> None:
    parts = list(ArrowReplacements(numbered([]), LONG, "bucket_5m", 10))
    assert [part.window for part in parts] == list(LONG.days())
    assert all(len(part.rows) == 0 for part in parts)


@pytest.mark.parametrize(
    ("slices", "sentence"),
    [
        ([1, 0], "The stream of batches is not in order of bucket_5m: sort it, or give it as one table."),
        (
            [0, 12],
            "The Arrow data holds rows of bucket_5m 2024-01-10 12:00:00+00:00 to 2024-01-10 13:00:00+00:00, outside the range "
            "2024-01-10T12:00Z to 2024-01-10T13:00Z that is being written.",
        ),
    ],
    ids=["out of order", "outside the window"],
)
@pytest.mark.parametrize("size", [1, 2], ids=["between batches", "inside a batch"])
def test_a_stream_that_does_not_fit_is_refused_in_one_sentence(slices: list[int], sentence: str, size: int) -> None:
    with pytest.raises(UserError) as refused:
        list(ArrowReplacements(iter(numbered(slices).to_batches(max_chunksize=size)), HOUR, "bucket_5m", 100))
    assert str(refused.value) == (
        sentence if size == 2 else sentence.replace("2024-01-10 12:00:00+00:00 to", "2024-01-10 13:00:00+00:00 to")
    )


@pytest.mark.parametrize("count", [0, 3])
def test_a_table_without_the_slice_column_is_refused_even_if_it_is_empty(count: int) -> None:
    with pytest.raises(UserError, match=r"^The Arrow data has no column bucket_5m, which says what slice a row belongs to\.$"):
        list(ArrowReplacements(pa.table({"n": range(count)}), HOUR, "bucket_5m", 100))


def test_slices_may_come_in_any_unit_of_time() -> None:
    data = numbered([0, 1]).cast(pa.schema([("bucket_5m", pa.timestamp("ms", "UTC")), ("n", pa.int64())]))
    parts: list[Replacement] = list(ArrowReplacements(data, HOUR, "bucket_5m", 1))
    assert [len(part.rows) for part in parts] == [1, 1]
    assert parts[0].window == Window(NOON, NOON + timedelta(minutes=5))


def test_commits_hold_whole_slices_and_a_failing_stream_keeps_what_was_committed(wide: StoreUnderTest) -> None:
    def breaks() -> Iterator[pa.RecordBatch]:
        yield from rows(20).to_batches(max_chunksize=2)
        raise RuntimeError("the producer broke")

    with wide.connect() as connection, pytest.raises(RuntimeError):
        replace_all(connection, Target.of(connection, "signals.wide"), ArrowReplacements(breaks(), HOUR, "bucket_5m", commit_rows=6))
    counts = wide.rows("SELECT bucket_5m, count(*) FROM signals.wide GROUP BY 1 ORDER BY 1")
    assert counts and all(count == 3 for _, count in counts)
