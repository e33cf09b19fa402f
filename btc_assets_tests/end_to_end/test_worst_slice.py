"""The largest slice that spot BTCUSDT ever had, ten times what is committed together, is loaded exactly and in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from btc_assets.domain.slices import DAY, KEY_FORMAT, SLICE, floor_day
from btc_assets.simulation.generate_day import generate_slices, worst_day_counts
from btc_assets_tests.support.stores import StoreUnderTest

GOAL_MB = 500

# `btc-assets` as its command does, and the most memory that the process ever had.
MEASURED = """
import runpy, sys
from pathlib import Path
try:
    runpy.run_module("btc_assets.cli", run_name="__main__")
finally:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print("peak", line.split()[1], file=sys.stderr)
"""

CANDLES = "SELECT sum(trade_count), sum(volume), sum(quote_volume), min(low), max(high) FROM market_data.candles_{} WHERE volume > 0"


@pytest.mark.slow
def test_a_slice_of_341_000_trades_between_others_is_exact_and_takes_bounded_memory(store: StoreUnderTest) -> None:
    counts = worst_day_counts()
    peak = counts.index(max(counts))
    day = floor_day(datetime.now(UTC)) - DAY
    trades = list(generate_slices(day, [0] * (peak - 1) + counts[peak - 1 : peak + 2]))
    store.land(*trades)
    window = [(day + (peak + number) * SLICE).strftime(KEY_FORMAT) for number in (-1, 2)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "load", "--from", window[0], "--to", window[1]],
        capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    expected = pa.concat_tables(trades)
    value = pc.sum(pc.multiply(expected["price"].cast(pa.decimal128(16, 8)), expected["quantity"].cast(pa.decimal128(20, 8)))).as_py()
    volume, low, high = pc.sum(expected["quantity"]).as_py(), pc.min(expected["price"]).as_py(), pc.max(expected["price"]).as_py()
    assert counts[peak] > 340_000
    assert store.rows(
        "SELECT bucket_5m, count(*), min(trade_id), max(trade_id), sum(trade_id) FROM market_data.btc_ticks GROUP BY 1 ORDER BY 1"
    ) == [
        (one["bucket_5m"][0].as_py(), len(one), *pc.min_max(one["trade_id"]).as_py().values(), pc.sum(one["trade_id"]).as_py())
        for one in trades
        if len(one)
    ]
    assert store.rows("SELECT sum(price * quantity), sum(quantity) FROM market_data.btc_ticks") == [(value, volume)]
    for interval in ("1s", "1m", "1d"):
        assert store.rows(CANDLES.format(interval)) == [(len(expected), volume, value, low, high)]
    assert store.rows("SELECT sum(trade_count)::bigint FROM signals.slice_features") == [(len(expected),)]
    (megabytes,) = (int(line.split()[1]) * 1024 / 1e6 for line in done.stderr.splitlines() if line.startswith("peak"))
    assert megabytes < GOAL_MB
