"""Real trades of the exchange, loaded, give the candles that the exchange published."""

from __future__ import annotations

import gzip
import io
import zipfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from btc_assets.domain.slices import Window
from btc_assets.market_data import candles
from btc_assets.market_data.continuity import read_gaps, read_repeats
from btc_assets.simulation.batches import BatchLimits
from btc_assets.simulation.replay import Landed, land_trades, read_trades
from btc_assets_tests.support.real_trades import KLINE_FIGURES, klines
from btc_assets_tests.support.stores import FEED, StoreUnderTest, real_data

DAY = Window(datetime(2020, 2, 22, tzinfo=UTC), datetime(2020, 2, 23, tzinfo=UTC))
CONTENT = "SELECT * FROM market_data.btc_ticks ORDER BY bucket_5m, symbol, trade_id"
CONTENT_WITHOUT_KIND = "SELECT (to_jsonb(t) - 'trade_kind')::text FROM market_data.btc_ticks AS t ORDER BY bucket_5m, symbol, trade_id"


def land_file(store: StoreUnderTest, path: Path, seconds: float = 15.0) -> Landed:
    landed = Landed()
    return land_trades(store.zone(), FEED, read_trades(path, FEED, landed), landed, limits=BatchLimits(seconds))


@pytest.mark.slow
def test_a_whole_day_of_trades_becomes_the_candles_that_the_exchange_published(store: StoreUnderTest) -> None:
    landed = land_file(store, real_data("um_BTCUSDT_2020-02-22_fullday_trades.csv.gz"))
    assert (landed.ticks, landed.rejected_rows) == (137_988, 0)
    result = store.ingest(DAY)
    assert (result.rows, len(result.slice_rows), result.duplicates) == (137_988, 288, 0)
    assert (read_gaps(store.connection, DAY), read_repeats(store.connection, DAY)) == ([], [])

    ours = {row[0]: row for row in candles.read_candles_of(store.connection, "1m", ["BTCUSDT"], DAY)["BTCUSDT"]}
    expected = dict(klines())
    assert len(expected) == 110
    for start, figures in expected.items():
        candle = dict(zip(candles.COLUMNS, ours[start], strict=True))
        assert [candle[name] for name in KLINE_FIGURES] == figures

    before = store.rows(CONTENT)
    store.ingest(DAY)
    assert store.rows(CONTENT) == before

    for interval in candles.INTERVALS:
        assert candles.read_candle_differences(store.connection, interval, DAY) == []
        totals = f"SELECT sum(trade_count), sum(volume), sum(quote_volume), min(low), max(high) FROM market_data.candles_{interval}"
        assert store.rows(totals) == store.rows(
            "SELECT count(*), sum(quantity), sum(price * quantity), min(price), max(price) FROM market_data.btc_ticks"
        )


def test_the_first_spot_trade_lies_in_the_slice_of_its_event_and_in_the_candle_of_its_trade(store: StoreUnderTest) -> None:
    land_file(store, real_data("spot_BTCUSDT_2023-04-05_ws_trades.csv.gz"))
    midnight = datetime(2023, 4, 5, tzinfo=UTC)
    store.ingest(Window(midnight, midnight + timedelta(minutes=10)))
    first = "SELECT bucket_5m, event_time, trade_time, buyer_order_id, seller_order_id, price, quantity FROM market_data.btc_ticks WHERE trade_id = 3071245454"
    assert store.rows(first) == [
        (midnight, midnight, midnight - timedelta(milliseconds=1), 20720542158, 20720542592, Decimal("28165.47"), Decimal("0.00056")),
    ]
    candle = "SELECT bucket, bucket_5m, trade_count, first_trade_id FROM market_data.candles_1m ORDER BY bucket LIMIT 1"
    assert store.rows(candle) == [(midnight - timedelta(minutes=1), midnight - timedelta(minutes=5), 1, 3071245454)]
    assert store.rows(
        "SELECT count(*) FROM market_data.btc_ticks WHERE date_trunc('minute', event_time) <> date_trunc('minute', trade_time)"
    ) == [(8,)]


@pytest.mark.parametrize(("name", "kind"), [("spot_BTCUSDT_2023-04-05_ws_trades", None), ("um_BTCUSDT_2024-07-18_19_ws_trades", "MARKET")])
def test_the_same_trades_give_the_same_table_in_any_format(store: StoreUnderTest, name: str, kind: str | None) -> None:
    """But for their kind, which the messages of futures alone tell."""
    as_csv, as_json = real_data(f"{name}.csv.gz"), real_data(f"{name}.raw.jsonl.gz")
    trades = list(read_trades(as_csv, FEED, Landed()))
    parquet, archive = io.BytesIO(), io.BytesIO()
    with pq.ParquetWriter(parquet, trades[0].schema) as writer:
        for table in trades:
            writer.write_table(table)
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("trades.csv", gzip.decompress(as_csv.read_bytes()))
    first = trades[0]["event_time"][0].as_py()
    window = Window.covering(first - timedelta(minutes=5), trades[-1]["event_time"][-1].as_py() + timedelta(minutes=5))
    contents, kinds = [], {}
    for suffix, data in (
        ("csv.gz", as_csv.read_bytes()),
        ("jsonl.gz", as_json.read_bytes()),
        ("parquet", parquet.getvalue()),
        ("zip", archive.getvalue()),
    ):
        uri = store.put(f"{first:%Y/%m/%d/%H/%M}/batch.{suffix}", data)
        store.register(window)
        store.load(window, force=True)
        contents.append(store.rows(CONTENT_WITHOUT_KIND))
        kinds[suffix] = store.rows("SELECT DISTINCT trade_kind FROM market_data.btc_ticks")
        store.delete(uri)
    assert len(contents[0]) == sum(map(len, trades))
    assert all(content == contents[0] for content in contents)
    assert kinds == {"csv.gz": [(None,)], "jsonl.gz": [(kind,)], "parquet": [(None,)], "zip": [(None,)]}
