"""The log of a play: a line for each slice, to compare with what the store holds afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import TextIO

import orjson
import pyarrow as pa

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE
from btc_assets.simulation.play_plan import PlayPlan


@dataclass
class _Tally:
    """What has landed of a slice."""

    objects: int = 0
    ticks: int = 0
    first_trade_id: int = 1 << 63
    last_trade_id: int = -1
    trade_ids: int = 0  # the sum of the ids
    quantity: Decimal = Decimal(0)  # the sum of the quantities
    landed_at: datetime | None = None


class SliceLog:
    """A file with a JSON line for each slice that was played: what is in it, when it ended, and when it had landed.

    `ended_at` is when the event clock passed the end of the slice (null if the play ended before), `landed_at` when the slice's
    last batch had landed; both are times of the wall clock.

    Args:
        path: the file; overwritten.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file: TextIO = path.open("w", buffering=1)
        except OSError as error:
            raise UserError(f"The log {path} cannot be written ({error.strerror}): name a file in a directory that exists.") from error
        self._open: dict[datetime, _Tally] = {}

    def add(self, ticks: pa.Table, at: datetime) -> None:
        """Add a batch that has landed."""
        totals = ticks.group_by("bucket_5m", use_threads=False).aggregate(
            [("trade_id", "count"), ("trade_id", "min"), ("trade_id", "max"), ("trade_id", "sum"), ("quantity", "sum")]
        )
        for row in totals.to_pylist():
            tally = self._open.setdefault(row["bucket_5m"], _Tally())
            tally.objects += 1
            tally.ticks += row["trade_id_count"]
            tally.first_trade_id = min(tally.first_trade_id, row["trade_id_min"])
            tally.last_trade_id = max(tally.last_trade_id, row["trade_id_max"])
            tally.trade_ids += row["trade_id_sum"]
            tally.quantity += row["quantity_sum"]
            tally.landed_at = at

    def write(self, plan: PlayPlan, before: datetime, now: datetime) -> None:
        """Write the slices that end at or before `before`, and forget them."""
        for bucket in sorted(self._open):
            end = bucket + SLICE
            if end > before:
                break
            tally, ended_at = self._open.pop(bucket), plan.reached(end)
            line = {"slice": bucket, "ended_at": ended_at if ended_at <= now else None, **vars(tally), "quantity": str(tally.quantity)}
            self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE).decode())

    def __enter__(self) -> SliceLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._file.close()
