"""A recording is a file of trades in order, or a generated day, read once to know what it holds."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY
from btc_assets.simulation.batches import encode_batch
from btc_assets.simulation.recordings import Recording, read_recording, survey
from btc_assets_tests.support.stores import FEED
from btc_assets_tests.support.trades import NOON, every, table, trade


def test_a_recording_knows_its_number_of_trades_its_times_and_its_lowest_id() -> None:
    ticks = table([trade(7, NOON + timedelta(seconds=30)), trade(5, NOON), trade(9, NOON + timedelta(seconds=90))])

    def tables() -> object:
        return iter([ticks])

    recording = survey("trades", tables)  # type: ignore[arg-type]
    assert recording == Recording("trades", tables, 3, NOON, NOON + timedelta(seconds=90), 5)  # type: ignore[arg-type]
    assert recording.length == timedelta(seconds=90)


def test_a_generated_day_needs_no_file() -> None:
    recording = read_recording("generated", FEED)
    assert recording.ticks == 500_000
    assert timedelta(hours=23, minutes=59) < recording.length < DAY


def test_a_file_out_of_order_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "trades.parquet"
    path.write_bytes(encode_batch(pa.concat_tables([every(60, 10, first_id=11), every(60, 10)]), FEED)[1])
    with pytest.raises(UserError) as refused:
        read_recording(str(path), FEED)
    assert str(refused.value) == (
        f"{path} is not in order of time (a trade of 2024-01-10 12:00:00+00:00 comes after later ones): sort it by event time first."
    )


def test_rows_of_a_file_that_are_not_valid_trades_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    path.write_text("trade_id,trade_time,price,quantity,is_market_maker\n1,1704888001000,5,1,true\n2,1704888002000,-5,1,true\n")
    recording = read_recording(str(path), FEED)
    assert (recording.ticks, recording.rejected_rows, recording.rejected) == (1, 1, ["row 2: price -5 is not above zero"])
    path.write_text("trade_id,trade_time,price,quantity,is_market_maker\n2,1704888002000,-5,1,true\n")
    with pytest.raises(UserError, match="holds no valid trade: give a file with at least one"):
        read_recording(str(path), FEED)
