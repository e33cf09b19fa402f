"""The command `land`: a file of trades is played into the landing zone, or refused in one sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner, Result

from btc_assets.cli.main import main
from btc_assets.simulation.batches import encode_batch
from btc_assets_tests.support.collected import decoded, objects
from btc_assets_tests.support.stores import FEED, StoreUnderTest
from btc_assets_tests.support.trades import every


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["land", *arguments], env={"COLUMNS": "300"})


def test_a_file_is_played_from_the_command_line(store: StoreUnderTest, tmp_path: Path) -> None:
    path, log = tmp_path / "trades.parquet", tmp_path / "log"
    path.write_bytes(encode_batch(every(10, 360), FEED)[1])
    began = datetime.now(UTC)
    result = cli("--live-from", str(path), "--speed", "7200", "--batch-seconds", "1", "--minutes", "30", "--log", str(log))
    ended = datetime.now(UTC)
    assert result.exit_code == 0, result.output
    first, *reported, last = result.output.splitlines()
    assert first.startswith(f"Playing 360 trades of {path} into {store.zone().url}/Binance/BTCUSDT from ")
    assert first.endswith(" at 7200x; it reaches the present after a second. It ends after 30 minutes. Ctrl-C ends it.")
    assert reported[0].startswith("slice ")
    assert last.startswith("Landed 360 objects with 360 ticks, ")
    assert sum(orjson.loads(line)["ticks"] for line in log.read_text().splitlines()) == 360
    ticks = pa.concat_tables([decoded(data) for data in objects(store.zone()).values()])
    assert began - timedelta(hours=1) < pc.min(ticks["event_time"]).as_py() < pc.max(ticks["event_time"]).as_py() <= ended


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Name one file of trades: FILE to land it at once, or --live-from FILE to play it."),
        (("a.csv", "--live-from", "b.csv"), "Name one file of trades: FILE to land it at once, or --live-from FILE to play it."),
        (("a.csv", "--speed", "60"), "--speed, --minutes and --log belong to a play: name its file with --live-from."),
        (("--live-from", "none.csv"), "The trades file none.csv does not exist"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(store: StoreUnderTest, arguments: tuple[str, ...], sentence: str) -> None:
    result = cli(*arguments)
    assert result.exit_code == 1
    assert sentence in result.output
    assert "Traceback" not in result.output


def test_a_store_that_is_not_set_up_is_refused_in_one_sentence(
    store: StoreUnderTest, empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTC_ASSETS_DSN", empty_database)
    path = tmp_path / "trades.parquet"
    path.write_bytes(encode_batch(every(1, 10), FEED)[1])
    result = cli("--live-from", str(path))
    assert result.exit_code == 1
    assert "run btc-assets db migrate." in result.output
    assert not store.uris()


def test_rows_of_a_file_that_are_not_trades_are_reported_and_the_others_landed(store: StoreUnderTest, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("trade_id,trade_time,price,quantity,is_market_maker\n1,1704888001000,5,1,true\n2,1704888002000,-5,1,true\n")
    result = cli(str(file))
    assert result.exit_code == 1
    assert "row 2: price -5 is not above zero" in result.output
    assert len(store.uris()) == 1
