"""A trade has one slice, whatever lands in whatever order and whatever is loaded: the table equals what plain Python computes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from btc_assets.domain.slices import SLICE, Window, floor_slice
from btc_assets.market_data.conflicts import read_conflicts
from btc_assets.market_data.continuity import read_repeats
from btc_assets.market_data.registry_equality import find_unequal_slices
from btc_assets.market_data.slice_records import read_record_differences
from btc_assets.market_data.source_rows import SourceReader
from btc_assets_tests.support.paths import case_file
from btc_assets_tests.support.stores import FEED, StoreUnderTest
from btc_assets_tests.support.trades import NOON, messages, trade

RANGE = Window(NOON, NOON + 4 * SLICE)
Version = dict[str, Any]


def version(trade_id: int, late: int | None, orders: int = 0) -> Version:
    """A version of one of a few trades around the edges of slices; `late` is how many seconds after it the event was sent."""
    made = NOON + trade_id * timedelta(seconds=75)
    row = trade(trade_id, made, made=made, buyer=7 if orders else None, price=f"{100 + trade_id}")
    if late is None:
        return row | {"event_time": None}
    return row | {"event_time": made + late * timedelta(seconds=1), "bucket_5m": floor_slice(made + late * timedelta(seconds=1))}


versions = st.builds(version, st.integers(0, 11), st.none() | st.sampled_from([0, 30, 80, 160, 400]), st.integers(0, 1))
contents = st.lists(versions, min_size=1, max_size=8)
windows = st.tuples(st.integers(0, 3), st.integers(1, 4)).map(
    lambda pair: Window(NOON + pair[0] * SLICE, min(NOON + (pair[0] + pair[1]) * SLICE, RANGE.end))
)


def expected(objects: dict[str, list[Version]]) -> set[tuple[object, ...]]:
    """The specification: of all versions of a trade the one that counts, as it is stored."""
    chosen: dict[int, tuple[tuple[object, ...], Version]] = {}
    for name in sorted(objects):
        for position, row in enumerate(objects[name]):
            time = row["event_time"] or row["trade_time"]
            rank = (row["event_time"] is None, time, row["buyer_order_id"] is None, name, position)
            if row["trade_id"] not in chosen or rank < chosen[row["trade_id"]][0]:
                chosen[row["trade_id"]] = rank, row
    return {
        (
            floor_slice(row["event_time"] or row["trade_time"]),
            row["event_time"] or row["trade_time"],
            row["trade_id"],
            row["buyer_order_id"],
        )
        for _, row in chosen.values()
    }


def stored(store: StoreUnderTest) -> list[tuple[object, ...]]:
    return store.rows("SELECT bucket_5m, event_time, trade_id, buyer_order_id FROM market_data.btc_ticks")


def empty(store: StoreUnderTest) -> None:
    store.connection.execute(
        "TRUNCATE landing.raw_blobs_5m, landing.rejected_rows, market_data.btc_ticks, ingestion.stream_offsets, "
        "market_data.conflicting_trades, market_data.loaded_slices"
    )
    shutil.rmtree(store.landing)
    store.landing.mkdir()


def put(store: StoreUnderTest, name: str, rows: Sequence[Version]) -> str:
    return store.put(f"2024/01/10/12/00/{name}.jsonl", messages(rows))


def check_exact(store: StoreUnderTest, objects: dict[str, list[Version]]) -> None:
    rows = stored(store)
    assert set(rows) == expected(objects)
    assert len(rows) == len(set(rows))
    assert read_repeats(store.connection, RANGE) == []
    assert find_unequal_slices(store.connection, RANGE) == []
    assert read_record_differences(store.connection, RANGE) == []


def load_waiting_slices(store: StoreUnderTest) -> None:
    """Load what the registry says is to be loaded, as the sensor does, and nothing else."""
    for (bucket,) in store.rows("SELECT DISTINCT bucket_5m FROM landing.slices WHERE state <> 'loaded' ORDER BY 1"):
        store.load(Window.of_slice(bucket), force=True)


@dataclass
class Step:
    """Objects that land, and what is loaded then."""

    landed: dict[str, list[Version]]
    deleted: set[str]
    load: Window


steps = st.lists(
    st.builds(
        Step, st.dictionaries(st.sampled_from("abcde"), contents, max_size=3), st.sets(st.sampled_from("abcde"), max_size=1), windows
    ),
    min_size=1,
    max_size=4,
)


def play(store: StoreUnderTest, steps: Sequence[Step], commit_rows: int) -> None:
    """Land, overwrite, delete and load as the steps say; the end is exact, and on the way no trade stands twice after a load."""
    empty(store)
    objects: dict[str, list[Version]] = {}
    for step in steps:
        for name, rows in step.landed.items():
            put(store, name, rows)
            objects[name] = rows
        for name in step.deleted & objects.keys():
            store.delete(f"{store.zone().url}/{FEED.prefix}/2024/01/10/12/00/{name}.jsonl")
            del objects[name]
        store.register(RANGE)
        store.load(step.load, commit_rows=commit_rows, force=True)
        repeats = store.rows("SELECT trade_id FROM market_data.btc_ticks GROUP BY trade_id HAVING count(*) > 1")
        assert repeats == []
    load_waiting_slices(store)
    check_exact(store, objects)
    store.load(RANGE, commit_rows=commit_rows)
    check_exact(store, objects)


@pytest.mark.slow
@pytest.mark.parametrize("large", [False, True], ids=["small objects", "large objects"])
def test_the_table_is_what_plain_python_says(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    if large:
        monkeypatch.setattr("btc_assets.landing.objects.LARGE_BYTES", 300)
        monkeypatch.setattr("btc_assets.market_data.source_rows._CONTESTED_ROWS", 3)

    @hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(steps, st.sampled_from([1, 100]))
    def run(steps: list[Step], commit_rows: int) -> None:
        play(store, steps, commit_rows)

    run()


STREAM = [version(i, 80) for i in range(12)]  # each in the slice after the one in which it was made, or in the same
DUMP = [version(i, None) for i in range(12)]


@pytest.mark.parametrize("first", ["dump", "stream"])
@pytest.mark.parametrize("commit_rows", [1, 100])
def test_a_dump_laid_over_a_recorded_stream_changes_nothing(store: StoreUnderTest, first: str, commit_rows: int) -> None:
    landings = {"a-dump": DUMP, "stream": STREAM}
    objects: dict[str, list[Version]] = {}
    for name in sorted(landings, key=lambda name: first not in name):
        objects[name] = landings[name]
        put(store, name, landings[name])
        store.register(RANGE)
        store.load(RANGE, commit_rows=commit_rows)
        check_exact(store, objects)


def test_loading_one_slice_also_replaces_the_slice_that_held_a_version_which_counts_no_more(store: StoreUnderTest) -> None:
    objects = {"a-dump": DUMP}
    put(store, "a-dump", DUMP)
    store.register(RANGE)
    store.load(RANGE)
    objects["stream"] = STREAM
    put(store, "stream", STREAM)
    store.register(RANGE)
    for bucket in RANGE.slices():
        store.load(Window.of_slice(bucket))
        assert read_repeats(store.connection, RANGE) == []
    check_exact(store, objects)


def test_a_slice_gets_a_trade_back_when_the_version_that_counted_is_gone(store: StoreUnderTest) -> None:
    for name, rows in (("a-dump", DUMP), ("stream", STREAM)):
        put(store, name, rows)
    store.register(RANGE)
    store.load(RANGE)
    store.delete(f"{store.zone().url}/{FEED.prefix}/2024/01/10/12/00/stream.jsonl")
    store.register(RANGE)
    before = stored(store)
    assert {state for (state,) in store.rows("SELECT state FROM landing.slices")} == {"source gone"}
    for bucket in RANGE.slices():  # what a slice cannot lose, no other slice takes
        with pytest.raises(Exception, match="is gone"):
            store.load(Window.of_slice(bucket))
    assert stored(store) == before
    store.load(RANGE, force=True)
    check_exact(store, {"a-dump": DUMP})


@pytest.mark.parametrize("how", ["deleted", "overwritten"])
def test_a_slice_gets_a_trade_back_from_a_version_that_was_never_loaded(store: StoreUnderTest, how: str) -> None:
    put(store, "a-dump", DUMP)
    put(store, "stream", [version(3, 80)])  # made in the first slice, sent in the second
    store.register(RANGE)
    store.load(Window.of_slice(NOON))
    objects = {"a-dump": DUMP}
    if how == "deleted":
        store.delete(f"{store.zone().url}/{FEED.prefix}/2024/01/10/12/00/stream.jsonl")
    else:
        objects["stream"] = [version(11, 80)]
        put(store, "stream", objects["stream"])
    store.register(RANGE)
    load_waiting_slices(store)
    check_exact(store, objects)


def test_a_slice_whose_ticks_were_dropped_keeps_its_trades(store: StoreUnderTest) -> None:
    put(store, "stream", STREAM)
    store.register(RANGE)
    store.load(RANGE)
    first = Window.of_slice(NOON)
    store.connection.execute("DELETE FROM market_data.btc_ticks WHERE bucket_5m = %s", (NOON,))
    earlier = [version(i, 30) for i in range(12)]
    put(store, "earlier", earlier)
    store.register(RANGE)
    store.load(Window(first.end, RANGE.end))
    held = {row[2] for row in stored(store)}
    assert not held & {row["trade_id"] for row in STREAM if row["event_time"] < first.end}
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks WHERE bucket_5m = %s", NOON) == [(0,)]


def test_a_gap_filled_from_rest_over_messages_of_the_stream(store: StoreUnderTest) -> None:
    day = Window(datetime.fromisoformat("2026-11-20T00:00Z"), datetime.fromisoformat("2026-11-21T00:00Z"))
    for name in ("rest-fill.jsonl", "collector.jsonl"):
        store.put(f"2026/11/20/05/04/{name}", case_file("11-gap-filled-from-rest", name).read_bytes())
        store.ingest(day)
    ids = [i for (i,) in store.rows("SELECT trade_id FROM market_data.btc_ticks ORDER BY 1")]
    assert len(ids) == len(set(ids)) == 200
    assert read_repeats(store.connection, day) == []
    assert store.rows("SELECT sum(trade_count)::int FROM market_data.candles_1m") == [(200,)]
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks WHERE event_time > trade_time") == [(200,)]


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The calls that read rivals."""
    calls: list[str] = []
    read = SourceReader.read_rivals

    def counting(self: SourceReader, window: Window, rivals: Any, wanted: Any) -> Any:
        calls.extend(one.uri for one in rivals)
        return read(self, window, rivals, wanted)

    with monkeypatch.context() as patch:
        patch.setattr(SourceReader, "read_rivals", counting)
        yield calls


def test_nothing_is_read_twice_where_ids_do_not_overlap_and_a_dump_never_for_a_stream(
    store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for minute in range(20):
        rows = [version(i, 0) for i in range(12) if (i * 75) // 60 == minute]
        if rows:
            put(store, f"batch-{minute:02}", rows)
    store.register(RANGE)
    with counted(monkeypatch) as calls:
        store.load(RANGE, commit_rows=1)
    assert calls == []
    put(store, "dump", DUMP)
    store.register(RANGE)
    with counted(monkeypatch) as calls:
        store.load(RANGE, commit_rows=1)
    assert not any("dump" in uri for uri in calls)


def conflicts(store: StoreUnderTest) -> list[tuple[str, int]]:
    return read_conflicts(store.connection, RANGE)


def test_versions_that_contradict_each_other_are_told_until_a_load_finds_none(store: StoreUnderTest) -> None:
    put(store, "a", [version(1, 0)])
    wrong = put(store, "b", [version(1, 0) | {"price": 7}, version(2, 0)])
    store.register(RANGE)
    assert store.load(RANGE).conflicting == 1
    uri = wrong.replace("b.jsonl", "a.jsonl")
    assert conflicts(store) == [
        (
            "BTCUSDT 2024-01-10T12:00Z: 1 version(s) of trades contradict the version that counts, such as trade 1: price 7, quantity 0.25, "
            f"bought at 2024-01-10T12:01:15+00:00 in {wrong}, against price 101, quantity 0.25, bought at 2024-01-10T12:01:15+00:00 in "
            f"{uri}: remove the wrong object",
            1,
        )
    ]
    assert store.rows("SELECT kind, what, symbol FROM landing.problems") == [("conflicting trades", "BTCUSDT 2024-01-10T12:00Z", "BTCUSDT")]
    put(store, "b", [version(2, 0)])
    store.register(RANGE)
    assert store.load(RANGE).conflicting == 0
    assert conflicts(store) == []


def test_versions_in_different_slices_that_contradict_each_other_are_told_too(store: StoreUnderTest) -> None:
    put(store, "a", [version(1, None)])
    store.register(RANGE)
    store.load(RANGE)
    put(store, "b", [version(1, 400) | {"quantity": 3}])
    store.register(RANGE)
    store.load(Window.of_slice(NOON + SLICE))
    assert [(sentence[:26], count) for sentence, count in conflicts(store)] == [("BTCUSDT 2024-01-10T12:00Z:", 1)]


def test_versions_that_differ_in_event_time_and_order_ids_alone_agree(store: StoreUnderTest) -> None:
    put(store, "a", [version(1, 0), version(1, 30), version(1, None), version(1, 400, orders=1)])
    store.register(RANGE)
    result = store.load(RANGE)
    assert (result.rows, result.duplicates, result.conflicting) == (1, 3, 0)
    assert conflicts(store) == []


def test_a_constant_id_in_many_small_objects_is_found_by_the_load(store: StoreUnderTest) -> None:
    for number in range(6):
        put(store, f"batch-{number}", [version(number, 0) | {"trade_id": 1}])
    store.register(RANGE)
    store.load(RANGE)
    assert sum(count for _, count in conflicts(store)) == 5


@pytest.mark.parametrize("order", ["dump first", "stream first"])
def test_loaders_of_neighboring_slices_at_once_leave_every_trade_in_one_slice(store: StoreUnderTest, order: str) -> None:
    objects = {"a-dump": DUMP, "stream": STREAM}
    for name in sorted(objects, reverse=order == "stream first"):
        put(store, name, objects[name])
        store.register(RANGE)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda bucket: store.load(Window.of_slice(bucket)), RANGE.slices()))
        assert read_repeats(store.connection, RANGE) == []
    check_exact(store, objects)


def test_what_is_registered_in_another_slice_while_a_load_reads_is_seen(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "a-dump", DUMP)
    store.register(RANGE)
    read, landed = SourceReader.read, list[bool]()

    def lands_meanwhile(self: SourceReader, *arguments: Any) -> Any:
        rows = read(self, *arguments)
        if not landed:
            landed.append(True)
            put(store, "stream", STREAM)
            store.register(RANGE)
            store.load(Window(NOON + SLICE, RANGE.end))
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(SourceReader, "read", lands_meanwhile)
        store.load(Window.of_slice(NOON))
    check_exact(store, {"a-dump": DUMP, "stream": STREAM})


def test_ids_that_a_former_release_did_not_record_are_found_beside_the_slice_and_recorded_by_the_next_load(store: StoreUnderTest) -> None:
    forget = "UPDATE landing.raw_blobs_5m SET first_trade_id = NULL, last_trade_id = NULL, event_times = NULL"
    put(store, "a-dump", DUMP)
    store.register(RANGE)
    store.load(RANGE)
    store.connection.execute(forget)
    put(store, "stream", STREAM)
    store.register(RANGE)
    for bucket in RANGE.slices():
        store.load(Window.of_slice(bucket))
        assert read_repeats(store.connection, RANGE) == []
    check_exact(store, {"a-dump": DUMP, "stream": STREAM})
    assert store.rows("SELECT count(*) FROM landing.raw_blobs_5m WHERE first_trade_id IS NULL AND row_count > 0") == [(0,)]
