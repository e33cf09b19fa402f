"""The front door: what it takes to open a store, that it only reads, and what is told if the server is not what it should be."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import btc_assets as btc
from btc_assets.client.ranges import TimeRange
from btc_assets.client.store import ClientStore
from btc_assets.client.ticks import _select
from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.settings import load_settings
from btc_assets.domain.slices import Window
from btc_assets.ops.roles import grant_rights
from btc_assets.store.read import fetch_table
from btc_assets_tests.client.conftest import FUTURE, SPOT, Market, open_market
from btc_assets_tests.support.roles import role_of_a_test
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON, every

DAY = "2024-01-10"


def test_what_is_imported_when_it_is_used_is_offered_before() -> None:
    assert {"connect", "ClientStore", "Expectation"} <= set(dir(btc))


def test_importing_the_package_imports_none_of_the_client() -> None:
    heavy = "pyarrow", "dagster", "torch", "polars", "pandas", "duckdb", "btc_assets.client"
    code = f"import btc_assets, sys; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_client_needs_neither_dagster_nor_torch_nor_a_data_frame(market: Market) -> None:
    code = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("dagster", "torch", "polars", "pandas", "duckdb", "matplotlib"):
            raise ImportError(name)

sys.meta_path.insert(0, Missing())
import btc_assets
print(btc_assets.connect({market.dsn!r}).ticks("BTCUSDT", "2024-01-10").arrow().num_rows)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert answer == f"{len(market.of(SPOT))}\n"
    heavy = "dagster", "torch", "polars", "pandas", "duckdb", "matplotlib"
    code = f"import btc_assets, sys; btc_assets.connect; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_without_arguments_the_settings_name_the_store(store: StoreUnderTest) -> None:
    with btc.connect() as opened, pytest.raises(UserError) as raised:
        opened.ticks(SPOT, DAY)
    assert str(raised.value) == "There is no symbol 'BTCUSDT' in this store: load ticks first (btc-assets load)."
    store.land(every(1, 600))
    store.ingest(btc.client.ranges.parse_range(DAY).window)
    with btc.connect() as opened:
        assert opened.ticks(SPOT, DAY).arrow().num_rows == 600
        [known] = opened.symbols().arrow().to_pylist()
        assert (known["symbol"], known["slices"], known["ticks"]) == (SPOT, 2, 600)


def test_symbols_tells_what_is_there(client: ClientStore, market: Market) -> None:
    found = client.symbols().arrow().to_pylist()
    assert [row["symbol"] for row in found] == [SPOT, FUTURE]
    for row in found:
        rows = market.of(row["symbol"])
        assert (row["ticks"], row["slices"]) == (len(rows), len({tick["bucket_5m"] for tick in rows}))
        assert row["first_slice"] == rows[0]["bucket_5m"]


def test_a_reader_s_rights_are_enough_for_everything(market: Market, client: ClientStore) -> None:
    def read_all(opened: ClientStore) -> list[pa.Table]:
        day = (NOON - timedelta(minutes=30), NOON + timedelta(hours=2))
        relations = [
            opened.symbols(), opened.ticks(SPOT, day), opened.ticks(SPOT, day, by="trade_time"), opened.candles(SPOT, "15m", day),
            opened.candles([SPOT, FUTURE], "90s", day, fill=True, wide=True), opened.asof(SPOT, FUTURE, day), opened.gaps(day),
            opened.slices(day), opened.coverage(day), opened.features(SPOT, day), opened.slice_bars(SPOT, day), opened.embeddings(),
            opened.similar(NOON, 3), opened.bars(SPOT, day, clock="tick", size=100),
        ]  # fmt: skip
        return [relation.arrow() for relation in relations]

    with role_of_a_test(market.dsn) as (name, dsn), psycopg.connect(market.dsn, autocommit=True) as owner:
        grant_rights(owner, readers=[name])
        found = read_all(open_market(dsn))
    assert found == read_all(client) and all(found)


def test_without_a_connection_string_the_embedded_server_is_read(market: Market) -> None:
    parts = conninfo_to_dict(market.dsn)
    if not str(parts["host"]).startswith("/"):
        pytest.skip("the server of the tests is not the embedded one")
    settings = load_settings().model_copy(update={"home": Path(str(parts["host"])).parent, "database": parts["dbname"], "dsn": None})
    with btc.connect(settings=settings) as opened:
        assert repr(opened) == "<btc_assets Store(embedded), decimals=exact>"
        assert opened.ticks(SPOT, DAY).arrow().num_rows == len(market.of(SPOT))


def test_a_role_without_rights_is_told_so(market: Market) -> None:
    with role_of_a_test(market.dsn) as (_, dsn), pytest.raises(UserError, match=r"^The database user lacks a right \(permission denied"):
        btc.connect(dsn).ticks(SPOT, DAY)


def test_a_write_is_refused_in_every_kind_of_session(client: ClientStore) -> None:
    source = client._source
    assert source.store.read_only
    with source.store.connect() as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("DELETE FROM market_data.btc_ticks")
    with source.store.connect(owner=True) as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("CREATE TABLE public.x (a int)")
    with pytest.raises(UserError, match="takes no writes"):
        fetch_table(source.store, sql.SQL("DELETE FROM market_data.btc_ticks RETURNING trade_id"))
    assert fetch_table(source.store, sql.SQL("SELECT 1 AS one"))["one"].to_pylist() == [1]


def test_threads_share_a_store(client: ClientStore, market: Market) -> None:
    start = threading.Barrier(4)

    def read(number: int) -> tuple[int, int]:
        start.wait()
        symbol = (SPOT, FUTURE)[number % 2]
        return client.ticks(symbol, DAY).arrow().num_rows, client.candles(symbol, "3m", DAY).arrow()["trade_count"].to_numpy().sum()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, range(4)))
    assert found == [(len(market.of(symbol)), len(market.of(symbol))) for symbol in (SPOT, FUTURE, SPOT, FUTURE)]


def test_two_streams_at_once_do_not_disturb_each_other(client: ClientStore, market: Market) -> None:
    one, other = client.ticks(SPOT, DAY, ["trade_id"]).batches(), client.ticks(FUTURE, DAY, ["trade_id"]).batches()
    first = one.read_next_batch()
    assert len(other.read_all()) == len(market.of(FUTURE))
    assert len(first) + len(one.read_all()) == len(market.of(SPOT))


def test_a_server_that_goes_away_within_a_stream_leaves_no_part_of_it(
    client: ClientStore, market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend is killed while it sends: a file is not there, and a reader raises."""
    monkeypatch.setattr("btc_assets.client.ticks._select", _killed_half_way)
    with pytest.raises(TransientError, match=r"^The database server ended the connection \(.*\): run it again once it is up\.$"):
        client.ticks(SPOT, DAY, ["trade_id"]).arrow()
    with pytest.raises(TransientError):
        client.ticks(SPOT, DAY, ["trade_id"]).to_parquet(tmp_path / "ticks.parquet")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert client.ticks(SPOT, DAY).arrow().num_rows == len(market.of(SPOT))


def _killed_half_way(symbol: str, span: TimeRange, by: str, part: Window, schema: pa.Schema, limit: int | None) -> sql.Composed:
    """Ticks whose session ends once it has sent those of an hour."""
    killed = sql.SQL(
        "SELECT bucket_5m, CASE WHEN bucket_5m >= {} THEN pg_terminate_backend(pg_backend_pid())::int::bigint ELSE trade_id END AS trade_id "
        "FROM ({}) AS ticks"
    )
    return killed.format(NOON + timedelta(minutes=30), _select(symbol, span, by, part, schema, limit))


def test_a_database_that_is_no_store_is_told(empty_database: str) -> None:
    with pytest.raises(UserError, match=r"^The database is not set up \(.*\): run btc-assets db migrate\.$"):
        btc.connect(empty_database).ticks(SPOT, DAY)


@pytest.mark.parametrize("edges", [("0001-01-01", "9999-12-31"), ("0001-01-01", "2024-02-01"), ("2024-01-01", "9999-12-31")])
def test_a_range_of_all_time_reads_what_is_there(client: ClientStore, edges: tuple[str, str]) -> None:
    assert client.ticks(SPOT, edges).arrow() == client.ticks(SPOT, DAY).arrow()
    assert client.ticks(SPOT, edges, by="trade_time").arrow() == client.ticks(SPOT, DAY).arrow()
    for interval in ("90s", "4h", "month"):
        assert client.candles(SPOT, interval, edges).arrow() == client.candles(SPOT, interval, "2024-01").arrow()
    assert client.features(SPOT, edges).arrow() == client.features(SPOT, DAY).arrow()
    assert client.slices(edges).arrow() == client.slices(DAY).arrow()
    assert client.gaps(edges).arrow() == client.gaps(DAY).arrow()
    assert client.dataset(SPOT, ["volume"], train=edges).train.arrow() == client.dataset(SPOT, ["volume"], train="2024-01-10").train.arrow()


def test_neither_the_store_nor_its_errors_show_a_password() -> None:
    opened = btc.connect("postgresql://reader:hunter2@127.0.0.1:1/store")
    assert repr(opened) == "<btc_assets Store(127.0.0.1:1/store), decimals=exact>"
    with pytest.raises(TransientError) as raised:
        opened.ticks(SPOT, DAY)
    assert "127.0.0.1:1/store" in str(raised.value) and "hunter2" not in str(raised.value)
    assert "hunter2" not in repr(opened._source)
    with pytest.raises(UserError, match=r"^The connection string is wrong: it must look like") as wrong:
        btc.connect("hunter2")
    assert "hunter2" not in str(wrong.value)


def _rows_of(sent: str) -> sql.Composed:
    """Rows in place of ticks, from `sent`, which names their ids and prices."""
    return sql.SQL("SELECT {}::timestamptz AS bucket_5m, " + sent + " AS id ORDER BY 1").format(NOON)


def test_a_value_that_arrow_cannot_hold_is_told_with_its_column(client: ClientStore, monkeypatch: pytest.MonkeyPatch) -> None:
    select = _rows_of("id AS trade_id, id * 1e33 AS price FROM generate_series(1::bigint, 10)")
    monkeypatch.setattr("btc_assets.client.ticks._select", lambda *_: select)
    with pytest.raises(UserError, match=r"^The column price holds a value that decimal128\(18, 8\) cannot hold \(.*\)\.$"):
        client.ticks(SPOT, DAY, ["price"]).arrow()


def test_a_limit_of_the_user_s_own_is_told_as_a_limit(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = _rows_of("id AS trade_id FROM LATERAL pg_sleep(100), generate_series(1::bigint, 10)")
    monkeypatch.setattr("btc_assets.client.ticks._select", lambda *_: slow)
    limited = btc.connect(make_conninfo(market.dsn, options="-c statement_timeout=2s"))
    with pytest.raises(UserError, match=r"ended what took longer than a limit allows \(canceling statement due to statement timeout\)"):
        limited.ticks(SPOT, DAY, ["trade_id", "symbol"]).arrow()


@pytest.mark.parametrize("symbol", [None, 5, ["BTCUSDT"], b"BTCUSDT", [None], ["BTCUSDT", 5]])
def test_what_is_no_symbol_is_one_sentence(client: ClientStore, symbol: Any) -> None:
    if symbol != ["BTCUSDT"]:  # candles take several
        with pytest.raises(UserError, match=r"is no symbol: name one by its label, such as 'BTCUSDT'\.$"):
            client.candles(symbol, "1m", DAY)
    with pytest.raises(UserError, match=r"is no symbol: name one by its label, such as 'BTCUSDT'\.$"):
        client.ticks(symbol, DAY)
