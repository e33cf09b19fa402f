"""The command `load`."""

from __future__ import annotations

from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import every


def test_loading_with_failed_checks_reports_them_and_exits_with_2(store: StoreUnderTest) -> None:
    store.land(every(1, 60))
    store.put("2024/01/10/12/00/batch-x.parquet", b"")
    result = run_command("load", "--from", "2024-01-10T12:00Z", "--to", "2024-01-10T12:05Z")
    assert result.exit_code == 2
    assert "check failed landing/raw_blobs_5m no_rejected_object" in result.output
