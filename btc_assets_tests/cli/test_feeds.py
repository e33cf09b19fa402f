"""The commands `feeds`: a feed that is retired leaves the settings, and what is stored of it stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, every

BOTH = "Binance/BTCUSDT=BTCUSDT:BTCUSDT,Kraken/XBT=XBT:XBT"
REST = "Kraken/XBT=XBT:XBT"


@pytest.fixture
def loaded(store: StoreUnderTest) -> StoreUnderTest:
    store.land(every(1, 300))
    store.put("2024/01/10/12/00/batch-x.parquet", b"")
    store.ingest(HOUR)
    return store


@pytest.mark.parametrize("where", ["environment", ".env"])
def test_a_retired_feed_leaves_the_settings_and_its_ticks_stay(
    loaded: StoreUnderTest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    (tmp_path / "Kraken").mkdir()
    monkeypatch.setenv("BTC_ASSETS_LANDING_FEEDS", BOTH)
    if where == ".env":
        (tmp_path / ".env").write_text(f"# mine\nBTC_ASSETS_LANDING_FEEDS='{BOTH}'\nAWS_PROFILE=x\n")
        monkeypatch.setenv("AWS_PROFILE", "")
    result = run_command("feeds", "retire", "BTCUSDT")
    assert result.exit_code == 0, result.output
    assert f"BTC_ASSETS_LANDING_FEEDS={REST}" in result.output
    assert "300 ticks of BTCUSDT in 1 slices stay; 1 problem(s) acknowledged." in result.output
    if where == ".env":
        text = (tmp_path / ".env").read_text()
        assert text.startswith("# mine\n") and REST in text and "Binance" not in text and "AWS_PROFILE=x" in text
    monkeypatch.setenv("BTC_ASSETS_LANDING_FEEDS", REST)
    assert "batch-x" not in run_command("status").output
    (row,) = (line for line in run_command("feeds").output.splitlines() if "retired" in line or "BTCUSDT" in line)
    assert loaded.rows("SELECT count(*) FROM market_data.btc_ticks") == [(300,)] and row


def test_the_only_feed_and_an_unknown_one_cannot_be_retired(loaded: StoreUnderTest) -> None:
    only = run_command("feeds", "retire", "BTCUSDT")
    assert only.exit_code == 1 and "BTCUSDT is the only feed, and a store has at least one" in only.output
    unknown = run_command("feeds", "retire", "ETHUSDT")
    assert unknown.exit_code == 1 and "There is no feed ETHUSDT: btc-assets feeds lists them." in unknown.output


def test_the_feeds_are_listed_with_what_is_stored_of_them(loaded: StoreUnderTest) -> None:
    (line,) = (line for line in run_command("feeds").output.splitlines() if "BTCUSDT" in line)
    assert [cell.strip() for cell in line.strip("│ ").split("│")] == ["BTCUSDT", "Binance/BTCUSDT", "BTCUSDT", "21", "1", "300"]
