"""The command line from a file of trades to candles."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import every


@pytest.fixture
def trades_file(tmp_path: Path) -> Path:
    """Ten minutes of trades as a gzipped CSV without event times."""
    lines = ["trade_time,symbol,trade_id,price,quantity,is_market_maker"]
    for row in every(1, 600).to_pylist():
        ms = int(row["trade_time"].timestamp() * 1000)
        lines.append(f"{ms},BTCUSDT,{row['trade_id']},{row['price']},{row['quantity']},{str(row['is_market_maker']).lower()}")
    path = tmp_path / "trades.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


@pytest.mark.slow
def test_a_file_is_landed_loaded_shown_and_plotted(store: StoreUnderTest, trades_file: Path, tmp_path: Path) -> None:
    assert "Landed 40 objects with 600 ticks" in run_command("land", str(trades_file)).output
    loaded = run_command("load", "--from", "2024-01-10T12:00Z", "--to", "2024-01-10T12:10Z")
    assert loaded.exit_code == 0, loaded.output
    assert "All 15 asset checks passed." in loaded.output
    status = run_command("status").output
    assert "2024-01-10" in status and "600" in status
    printed = run_command("candles", "5m").output.splitlines()
    assert printed[0].startswith("bucket,open,high,low,close,volume")
    assert [line.split(",")[0] for line in printed[1:]] == ["2024-01-10T12:00:00Z", "2024-01-10T12:05:00Z"]
    picture = tmp_path / "day.png"
    assert run_command("candles", "1m", "--from", "2024-01-10", "--to", "2024-01-11", "--plot", str(picture)).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    nowhere = run_command("candles", "1m", "--from", "2024-01-10", "--to", "2024-01-11", "--plot", str(tmp_path / "no" / "day.png"))
    assert nowhere.exit_code == 1 and "cannot be written (No such file or directory)" in nowhere.output
