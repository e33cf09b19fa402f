"""The torture of stores: it tells a right store from a wrong one, and this project passes it."""

import importlib
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from btc_assets_tests.support.paths import PROJECT


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    return importlib.import_module("bench_stores")


START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    """Four trades of two quarters of an hour, as the collector writes them, in two objects."""
    folder = tmp_path / "landed"
    folder.mkdir()
    times = [(START + timedelta(minutes=minutes)).isoformat() for minutes in (0, 14, 15, 16)]
    columns = {
        "event_time": times,
        "trade_time": times,
        "trade_id": [1, 2, 3, 4],
        "price": [10.0, 12.0, 9.5, 11.25],
        "quantity": [1.0, 2.0, 0.5, 0.25],
        "is_market_maker": [True, False, True, False],
    }
    table = pa.table(columns)
    pq.write_table(table.slice(0, 2), folder / "a.parquet")
    pq.write_table(table.slice(2), folder / "b.parquet")
    return folder


def as_stored(folder: Path) -> pa.Table:
    table = pq.read_table(folder)
    time = pa.timestamp("us", "UTC")
    for name in ("event_time", "trade_time"):
        table = table.set_column(table.column_names.index(name), name, table[name].cast(time))
    return table


def test_missing_doubled_and_wrong_trades_are_counted(stores: ModuleType, objects: Path) -> None:
    truth, stored = stores.landed(objects), as_stored(objects)
    assert str(stores.compare(truth, stored)) == "exact"
    assert str(stores.compare(truth, stored.slice(1))) == "1 row missing"
    assert str(stores.compare(truth, pa.concat_tables([stored, stored.slice(3)]))) == "1 row extra"
    price = stored.column_names.index("price")
    wrong = stored.set_column(price, "price", pa.array([10.0, 12.0, 9.5, 11.25000001]))
    assert str(stores.compare(truth, wrong)) == "1 row wrong"


def test_candles_that_are_wrong_missing_or_too_many_are_counted(stores: ModuleType, objects: Path) -> None:
    candles: dict[str, list[Any]] = {
        "bucket": [START, START + timedelta(minutes=15)],
        "open": [10.0, 9.5],
        "high": [12.0, 11.25],
        "low": [10.0, 9.5],
        "close": [12.0, 11.25],
        "volume": [3.0, 0.75],
        "trade_count": [2, 2],
    }
    right = pa.table(candles)
    later = pa.table({**candles, "bucket": [time + timedelta(hours=1) for time in candles["bucket"]]})
    assert stores.wrong_candles(objects, right) == 0
    assert stores.wrong_candles(objects, pa.table({**candles, "close": [12.0, 11.0]})) == 1
    assert stores.wrong_candles(objects, right.slice(1)) == 1
    assert stores.wrong_candles(objects, pa.concat_tables([right, later.slice(1)])) == 1


@pytest.mark.slow
def test_this_project_passes_the_torture(stores: ModuleType, empty_database: str, tmp_path: Path) -> None:
    bench = stores.Bench(tmp_path, empty_database, stores.Day(2_000, 16), embedded=False, commit_rows=1_000)
    month = tmp_path / "month"
    stores.land_month(month, 2, 1_000)
    torture = stores.Torture(stores.Comparison(bench, tmp_path / "kept"), tmp_path, {"project": sys.executable}, (month, 2))
    try:
        found = stores.torture(torture, "project")
    finally:
        bench.connection.close()
    held = [str(cell.difference) for cell in found.cells]
    assert held[:5] == ["exact"] * 5
    killed = found.cells[5].difference
    assert (killed.extra, killed.wrong) == (0, 0)
    assert held[6] == "exact"
    assert found.cells[3].note.endswith("rows extra) until `--force`: ")
    assert (found.wrong_candles, found.candles.error, found.read.error) == (0, None, None)
