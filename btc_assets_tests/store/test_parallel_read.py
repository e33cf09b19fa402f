"""Several sessions read what one would: the same rows, in order, of one snapshot; and never a part of them as if it were all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from psycopg import sql

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.slices import DAY, SLICE, Window
from btc_assets.domain.ticks import TABLE, TICK_SCHEMA
from btc_assets.simulation.generate_day import generate_day
from btc_assets.store import parallel_read
from btc_assets.store.cut import ArrowReplacements
from btc_assets.store.database import Store, identifier
from btc_assets.store.parallel_read import Query, _Reading, stream
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.servers import Server
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON
from btc_assets_tests.support.waiting import wait_for

TWO_HOURS = Window(NOON, NOON + timedelta(hours=2))
SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type LIKE 'client%'"
)

PROGRAM = """
import sys
from datetime import datetime, UTC
from psycopg import sql
from btc_assets.domain.slices import DAY, Window
from btc_assets.domain.ticks import TICK_SCHEMA
from btc_assets.store.database import Store
from btc_assets.store.parallel_read import Query, stream
window = Window(datetime(2024, 1, 10, tzinfo=UTC), datetime(2024, 1, 11, tzinfo=UTC))
select = sql.SQL("SELECT * FROM market_data.btc_ticks ORDER BY bucket_5m, trade_id")
query = Query(lambda part: select, TICK_SCHEMA, window, group_by="bucket_5m", constants={"symbol": "BTCUSDT"}, step=DAY)
assert stream(Store(sys.argv[1]), query).read_next_batch().num_rows
sys.exit("pandas" in sys.modules)
"""


def select_ticks(window: Window) -> sql.Composed:
    return sql.SQL("SELECT * FROM {} WHERE symbol = 'BTCUSDT' AND bucket_5m >= {} AND bucket_5m < {} ORDER BY bucket_5m, trade_id").format(
        identifier(TABLE), window.start, window.end
    )


def ticks_query(window: Window = TWO_HOURS) -> Query:
    return Query(select_ticks, TICK_SCHEMA, window, group_by="bucket_5m", constants={"symbol": "BTCUSDT"})


@pytest.fixture
def ticks() -> pa.Table:
    """Two hours of ticks in 24 slices; some have order ids and a kind, of some slices all."""
    day = pa.concat_tables(generate_day(NOON - DAY / 2, 12_000))
    some = day.filter(pc.and_(pc.greater_equal(day["bucket_5m"], TWO_HOURS.start), pc.less(day["bucket_5m"], TWO_HOURS.end)))
    ids = some["trade_id"].to_pylist()
    columns = {
        "buyer_order_id": [number if number % 3 or at > NOON + timedelta(hours=1) else None for number, at in zip(ids, some["bucket_5m"].to_pylist(), strict=True)],
        "trade_kind": ["MARKET" if number % 2 else "INSURANCE_FUND" if number % 5 == 0 else None for number in ids],
    }  # fmt: skip
    for name, values in columns.items():
        some = some.set_column(TICK_SCHEMA.get_field_index(name), TICK_SCHEMA.field(name), pa.array(values, TICK_SCHEMA.field(name).type))
    return some


@pytest.fixture
def loaded(store: StoreUnderTest, ticks: pa.Table) -> StoreUnderTest:
    write(store, ticks)
    return store


def write(store: StoreUnderTest, ticks: pa.Table) -> None:
    store.connection.execute("SELECT market_data.ensure_tick_partitions(%s, %s)", (TWO_HOURS.start, TWO_HOURS.end))
    replacements = ArrowReplacements(ticks, TWO_HOURS, "bucket_5m", 1000)
    replace_all(store.connection, Target.of(store.connection, TABLE), replacements)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Batches and parts so small that a thousand ticks are many of them, and hardly anything is kept."""
    for name, value in {"_BATCH_ROWS": 50, "_PART_ROWS": 100, "_KEPT_BYTES": 5_000}.items():
        monkeypatch.setattr(parallel_read, name, value)
    yield


@pytest.mark.parametrize("sessions", [1, 2, 4])
@pytest.mark.usefixtures("small")
def test_any_number_of_sessions_reads_the_same_rows_in_order(loaded: StoreUnderTest, ticks: pa.Table, sessions: int) -> None:
    back = stream(loaded.database, ticks_query(), sessions=sessions).read_all()
    assert back.equals(ticks.cast(TICK_SCHEMA))


def test_rows_are_packed_by_part_where_no_column_groups_them(loaded: StoreUnderTest, ticks: pa.Table) -> None:
    query = Query(select_ticks, pa.schema([TICK_SCHEMA.field(name) for name in ("trade_id", "symbol", "bucket_5m")]), TWO_HOURS)
    assert stream(loaded.database, query).read_all().equals(ticks.select(["trade_id", "symbol", "bucket_5m"]).cast(query.schema))


def test_a_window_without_rows_is_an_empty_stream_of_the_same_columns(loaded: StoreUnderTest) -> None:
    for query in (ticks_query(Window(NOON - DAY, NOON - DAY / 2)), Query(select_ticks, TICK_SCHEMA, Window(NOON - DAY, NOON))):
        back = stream(loaded.database, query).read_all()
        assert (len(back), back.schema) == (0, TICK_SCHEMA)


@pytest.mark.usefixtures("small")
def test_all_sessions_see_the_store_as_it_was_when_reading_began(loaded: StoreUnderTest, ticks: pa.Table) -> None:
    reader = stream(loaded.database, ticks_query())
    first = reader.read_next_batch()
    loaded.connection.execute("DELETE FROM market_data.btc_ticks")
    back = pa.Table.from_batches([first, *reader])
    assert back.equals(ticks.cast(TICK_SCHEMA))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("after", ["first", "second"])
def test_a_session_that_is_lost_within_the_stream_fails_it(loaded: StoreUnderTest, after: str) -> None:
    reader = stream(loaded.database, ticks_query())
    reader.read_next_batch()
    if after == "second":
        for _ in range(4):
            reader.read_next_batch()
    lost = f"SELECT count(pg_terminate_backend(pid, 5000)) FROM ({SESSIONS.replace('count(*)', 'pid')} AND state <> 'idle') AS reading"
    assert loaded.rows(lost)[0][0] >= 1
    with pytest.raises(TransientError, match=r"^The database server ended the connection \(.*\): run it again once it is up\.$"):
        reader.read_all()


@pytest.mark.usefixtures("small")
def test_a_reader_that_is_dropped_early_ends_its_sessions(loaded: StoreUnderTest) -> None:
    reader = stream(loaded.database, ticks_query())
    reader.read_next_batch()
    assert loaded.rows(SESSIONS)[0][0] >= 1
    del reader
    wait_for(lambda: loaded.rows(SESSIONS) == [(0,)], "its sessions end")


@pytest.mark.parametrize("child", ["drops it", "reads on"])
def test_a_process_that_is_forked_does_not_touch_the_reading_of_its_parent(
    loaded: StoreUnderTest, ticks: pa.Table, child: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel_read, "_BATCH_ROWS", 100)
    batches = _Reading(loaded.database, ticks_query()).batches(2)
    read = [next(batches)]
    if not (pid := os.fork()):
        status = 1
        try:
            if child == "reads on":
                next(batches)
            del batches
            status = 2 if child == "reads on" else 0
        except UserError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert pa.Table.from_batches([*read, *batches]).equals(ticks)


def test_nothing_is_connected_before_the_first_batch_is_asked_for() -> None:
    reader = stream(Store("postgresql://nobody@127.0.0.1:1/nowhere"), ticks_query())
    with pytest.raises(TransientError, match="cannot be reached"):
        reader.read_next_batch()


@pytest.mark.usefixtures("small")
def test_where_the_server_admits_one_session_alone_that_one_reads_all(loaded: StoreUnderTest, ticks: pa.Table) -> None:
    admitted: list[Store] = []

    class Alone(Store):
        def connect(self, *, owner: bool = False) -> object:  # type: ignore[override]
            admitted.append(self)
            if len(admitted) > 1:
                raise TransientError("no connection left")
            return super().connect(owner=owner)

    assert stream(Alone(loaded.dsn), ticks_query()).read_all().equals(ticks.cast(TICK_SCHEMA))
    assert len(admitted) == 2


def test_a_reading_writes_nothing(loaded: StoreUnderTest) -> None:
    query = Query(lambda _: sql.SQL("SELECT nextval('numbers') AS n"), pa.schema([("n", pa.int64())]), Window(NOON, NOON + SLICE))
    loaded.connection.execute("CREATE SEQUENCE numbers")
    with pytest.raises(UserError, match="takes no writes"):
        stream(loaded.database, query).read_all()


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_standby_is_read_by_several_sessions(own_server: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    select = "SELECT n, repeat('x', 500) AS pad FROM generate_series({}, {}, interval '1 second') AS n ORDER BY n"
    schema = pa.schema([pa.field("n", pa.timestamp("us", "UTC"), nullable=False), ("pad", pa.string())])
    query = Query(lambda window: sql.SQL(select).format(window.start, window.end - timedelta(seconds=1)), schema, TWO_HOURS)
    with own_server.standby(tmp_path_factory.mktemp("s")) as dsn:
        back = stream(Store(dsn), query).read_all()
    assert back["n"].to_pylist() == [NOON + timedelta(seconds=n) for n in range(7200)]


def test_reading_does_not_import_pandas(loaded: StoreUnderTest) -> None:
    """Arrow does so in `pa.array` and `pa.scalar` wherever pandas is installed, which takes longer than the first batch may."""
    subprocess.run([sys.executable, "-c", PROGRAM, loaded.dsn], check=True)
