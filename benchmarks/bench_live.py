"""From the end of a slice to its candles: a play into a store of its own that `btc-assets dev` keeps up to date.

Nothing is simulated: the webserver, the daemon and its sensor run as `make dev` runs them, and a second process plays trades
into the landing zone. When everything is loaded, every slice is compared with what was played, and its latency is broken down
by the play's log, the registry and Dagster's own tables. With `--live` the open slice is loaded as well, and each object is followed
from its landing to the first moment at which a candle holds its last trade.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import orjson
import psutil
import psycopg
from rich.console import Console
from rich.status import Status
from rich.table import Table
from throwaway import machine

from btc_assets.domain.settings import PREFIX, Settings, load_settings
from btc_assets.domain.slices import DAY, KEY_FORMAT, SLICE, Window, floor_day

GOAL_SECONDS = 6.0  # after the grace, of 95 slices in 100
AGE_GOAL_SECONDS = 10.0  # of an object that is in no candle yet, with --live
SAMPLE_SECONDS = 0.5
START_SECONDS = 180  # until the sensor has ticked for the first time
PARTS = ("last batch lands", "grace", "quiet time, tick", "queue", "run starts", "register, load", "candles")


@dataclass(frozen=True)
class Played:
    """A line of the play's log."""

    bucket: datetime
    ended_at: datetime | None
    landed_at: datetime
    ticks: int
    first_trade_id: int
    last_trade_id: int
    trade_ids: int
    quantity: Decimal

    @classmethod
    def of(cls, line: str) -> Played:
        row = orjson.loads(line)
        ended_at = datetime.fromisoformat(row["ended_at"]) if row["ended_at"] else None
        return cls(
            bucket=datetime.fromisoformat(row["slice"]),
            ended_at=ended_at,
            landed_at=datetime.fromisoformat(row["landed_at"]),
            ticks=row["ticks"],
            first_trade_id=row["first_trade_id"],
            last_trade_id=row["last_trade_id"],
            trade_ids=row["trade_ids"],
            quantity=Decimal(row["quantity"]),
        )

    @property
    def figures(self) -> tuple[object, ...]:
        return self.ticks, self.first_trade_id, self.last_trade_id, self.trade_ids, self.quantity


# ---- the processes


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "btc_assets.cli", *arguments]


@contextmanager
def development(directory: Path, log: Path) -> Iterator[None]:
    """`btc-assets dev` in a process group of its own, ended with all that it started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with log.open("w") as output:
        process = subprocess.Popen(
            command("dev", "--port", port), cwd=directory, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield
    finally:
        started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in its terminal
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        _, left = psutil.wait_procs(started, 15)
        for child in left:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        if process.poll() is None:
            process.kill()


def wait_for_sensor(connection: psycopg.Connection, log: Path) -> None:
    """Until the daemon has evaluated a sensor.

    Raises:
        SystemExit: it does not.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        (there,) = connection.execute("SELECT to_regclass('dagster.job_ticks')").fetchone() or (None,)
        if there and connection.execute("SELECT 1 FROM dagster.job_ticks WHERE type = 'SENSOR' LIMIT 1").fetchone():
            return
        time.sleep(1)
    raise SystemExit(f"no sensor ticked within {START_SECONDS} s:\n{log.read_text()[-3000:]}")


def play(directory: Path, args: argparse.Namespace, log: Path, out: Console, status: Status) -> None:
    """Play, and show how it goes.

    Raises:
        SystemExit: it failed.
    """
    arguments = ["land", "--live-from", str(args.trades.resolve()) if args.trades else "generated", "--speed", str(args.speed)]
    process = subprocess.Popen(
        command(*arguments, "--minutes", str(args.minutes), "--log", str(log)),
        cwd=directory,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("slice "):
                status.update(line.strip())
            else:
                out.print(line.strip(), highlight=False, soft_wrap=True)
        if process.wait():
            raise SystemExit("the play failed: see above")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


class Watch:
    """Looks, twice a second, which trade is the newest in the candles, until the end of the block.

    Args:
        dsn: of the store.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn, self._stop = dsn, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seen: list[tuple[datetime, int]] = []  # when, and the highest trade id

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self._stop.wait(SAMPLE_SECONDS):
                row = connection.execute("SELECT clock_timestamp(), max(last_trade_id) FROM market_data.candles_1h").fetchone()
                if row and row[1] is not None:
                    self.seen.append(row)

    def ages(self, connection: psycopg.Connection) -> list[float]:
        """For each object, the seconds from its landing to the first candle that holds its last trade."""
        found, position = [], 0
        for landed, newest in connection.execute(_OBJECTS).fetchall():
            while position < len(self.seen) and self.seen[position][1] < newest:
                position += 1
            if position < len(self.seen):
                found.append((self.seen[position][0] - landed).total_seconds())
        return found


# ---- what came out

_OBJECTS = """
SELECT max(last_modified), max(last_trade_id) FROM landing.raw_blobs_5m WHERE status = 'registered' GROUP BY uri ORDER BY 2
"""

_TICKS = """
SELECT bucket_5m, count(*), min(trade_id), max(trade_id), sum(trade_id), sum(quantity) FROM market_data.btc_ticks GROUP BY bucket_5m
"""

# Of each slice, the first run that loaded it when all of its objects were registered, and the first candles after that.
_RUNS = """
WITH whole AS (
    SELECT bucket_5m, to_char(bucket_5m, 'YYYY-MM-DD"T"HH24:MI"Z"') AS partition, max(registered_at) AS at
    FROM landing.raw_blobs_5m WHERE status = 'registered' GROUP BY bucket_5m
), events AS (
    SELECT run_id, step_key, asset_key, partition, dagster_event_type AS type, timestamp AT TIME ZONE 'UTC' AS at FROM dagster.event_logs
    WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND asset_key IN ('["market_data", "btc_ticks"]', %(last)s)
        OR dagster_event_type IN ('STEP_START', 'PIPELINE_STARTING')
)
SELECT DISTINCT ON (bucket_5m) bucket_5m, runs.create_timestamp AT TIME ZONE 'UTC', starting.at, to_timestamp(runs.start_time), ticks.at, (
    SELECT min(candles.at) FROM events AS candles
    WHERE candles.partition = ticks.partition AND candles.asset_key = %(last)s AND candles.at >= ticks.at
)
FROM whole
JOIN events AS ticks ON ticks.partition = whole.partition AND ticks.asset_key = '["market_data", "btc_ticks"]'
JOIN events AS began ON (began.run_id, began.step_key) = (ticks.run_id, ticks.step_key) AND began.type = 'STEP_START' AND began.at >= whole.at
JOIN dagster.runs ON runs.run_id = ticks.run_id
LEFT JOIN events AS starting ON starting.run_id = ticks.run_id AND starting.type = 'PIPELINE_STARTING'
ORDER BY bucket_5m, ticks.at
"""

_FAILURES = """
SELECT step_key, coalesce(
    data #>> '{user_failure_data,description}', data #>> '{error,cause,message}', data #>> '{error,message}', 'no error was recorded'
) FROM (
    SELECT id, step_key, event::jsonb #> '{dagster_event,event_specific_data}' AS data FROM dagster.event_logs
    WHERE dagster_event_type = 'STEP_FAILURE'
) AS failures ORDER BY id LIMIT 5
"""


class Outcome:
    """What was played, what the table holds, and when it came there."""

    def __init__(self, connection: psycopg.Connection, played: Sequence[Played], interval: str) -> None:
        self.played = played
        self.loaded = {bucket: tuple(figures) for bucket, *figures in connection.execute(_TICKS)}
        last = f'["market_data", "candles_{interval}"]'
        (self.running,) = connection.execute(
            "SELECT count(*) FROM dagster.runs WHERE status IN ('QUEUED', 'NOT_STARTED', 'STARTING', 'STARTED')"
        ).fetchone() or (0,)
        self.times = {
            bucket: tuple(times) for bucket, *times in connection.execute(_RUNS, {"last": last}) if None not in (times[0], *times[2:])
        }

    @property
    def exact(self) -> list[Played]:
        return [slice for slice in self.played if self.loaded.get(slice.bucket) == slice.figures]

    @property
    def complete(self) -> bool:
        whole = len(self.exact) == len(self.played) and all(slice.bucket in self.times for slice in self.played)
        return whole and not self.running

    def problems(self) -> Iterator[str]:
        """What is wrong, in sentences."""
        for slice in self.played:
            if (found := self.loaded.get(slice.bucket)) != slice.figures:
                yield f"{slice.bucket:{KEY_FORMAT}}: played {slice.figures}, the table has {found}"
            elif slice.bucket not in self.times:
                yield f"{slice.bucket:{KEY_FORMAT}}: no candles were made after its ticks were whole"
        for bucket in sorted(self.loaded.keys() - {slice.bucket for slice in self.played}):
            yield f"{bucket:{KEY_FORMAT}}: nothing was played, the table has {self.loaded[bucket]}"
        for before, after in pairwise(self.played):
            if after.first_trade_id != before.last_trade_id + 1:
                yield f"{after.bucket:{KEY_FORMAT}}: its ids do not follow on from the slice before"

    def latencies(self, slices: Sequence[Played], grace: timedelta) -> list[list[float]]:
        """The seconds of `PARTS`, for each slice."""
        found = []
        for slice in slices:
            if slice.ended_at is None or slice.bucket not in self.times:
                continue
            created, starting, started, ticks, candles = self.times[slice.bucket]
            landed = max(slice.landed_at, slice.ended_at)
            closed = min(max(slice.bucket + SLICE + grace, landed), max(created, landed))
            points = [slice.ended_at, landed, closed, created, starting or created, started, ticks, candles]
            found.append([(after - before).total_seconds() for before, after in pairwise(points)])
        return found


def wait_until_loaded(connection: psycopg.Connection, played: Sequence[Played], interval: str, patience: float, status: Status) -> Outcome:
    """Until everything is in the table, or nothing more has come for a while."""
    best, since = -1, time.monotonic()
    while True:
        outcome = Outcome(connection, played, interval)
        done = len(outcome.exact) + len(outcome.times)
        if done > best:
            best, since = done, time.monotonic()
        if outcome.complete or time.monotonic() - since > patience:
            return outcome
        status.update(f"{len(outcome.exact)} of {len(played)} slices are loaded")
        time.sleep(2)


def show(outcome: Outcome, connection: psycopg.Connection, settings: Settings, args: argparse.Namespace, out: Console) -> bool:
    """Print everything; returns whether it is as it should be."""
    from btc_assets.market_data import candles

    window = Window(outcome.played[0].bucket, outcome.played[-1].bucket + SLICE)
    differences = [
        text for interval in candles.enabled_intervals(settings) for text in candles.read_candle_differences(connection, interval, window)
    ]
    problems = [*outcome.problems(), *map(str, differences)]
    ticks = sum(slice.ticks for slice in outcome.played)
    out.print(
        f"{len(outcome.exact)} of {len(outcome.played)} slices exact, {ticks:,} ticks played, "
        f"{sum(figures[0] for figures in outcome.loaded.values()):,} in the table; "
        f"{'no gap, none twice, candles equal' if not problems else f'{len(problems)} PROBLEMS'}",
        highlight=False,
    )
    for problem in problems[:20]:
        out.print(f"  {problem}", highlight=False)
    runs = connection.execute("SELECT status, count(*) FROM dagster.runs GROUP BY status ORDER BY status").fetchall()
    out.print(f"runs: {', '.join(f'{count} {state}' for state, count in runs)}", highlight=False)
    for step, why in connection.execute(_FAILURES):
        out.print(f"  {step}: {why.strip()}", highlight=False, markup=False)
    in_time = [slice for slice in outcome.played if slice.ended_at == slice.bucket + SLICE]
    for name, slices in ((f"catching up at {args.speed:g}x", [s for s in outcome.played if s not in in_time]), ("in real time", in_time)):
        if rows := outcome.latencies(slices, timedelta(seconds=args.grace)):
            columns = [*map(list, zip(*rows, strict=True)), [sum(row) for row in rows]]
            table = Table("seconds", "median", "p95", "most", title=f"From the end of a slice to its candles, {name}, n = {len(rows)}")
            for part, values in zip((*PARTS, "in all"), columns, strict=True):
                values.sort()
                table.add_row(part, *(f"{at(values, share):.1f}" for share in (0.5, 0.95, 1)))
            out.print(table)
            if slices is in_time:
                after = at(columns[-1], 0.95) - args.grace
                out.print(
                    f"95 of 100 slices within the grace of {args.grace:g} s and {after:.1f} s; the goal is {GOAL_SECONDS:g} s: "
                    f"{'reached' if after <= GOAL_SECONDS else 'MISSED'}",
                    highlight=False,
                )
    return not problems


def at(ordered: Sequence[float], share: float) -> float:
    """The value that this share of others does not exceed."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def show_ages(ages: list[float], every: int, out: Console) -> None:
    """Print how long objects waited for a candle."""
    ages.sort()
    out.print(
        f"The open slice, loaded every {every} s: from an object's landing to its trades in candles, n = {len(ages)}: "
        f"median {at(ages, 0.5):.1f} s, p95 {at(ages, 0.95):.1f}, most {at(ages, 1):.1f}; the goal is {AGE_GOAL_SECONDS:g} s: "
        f"{'reached' if at(ages, 0.95) <= AGE_GOAL_SECONDS else 'MISSED'}",
        highlight=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", type=float, default=60.0, help="of the play (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=10.0, help="of wall clock to play (default: %(default)s)")
    parser.add_argument("--trades", type=Path, help="play this file instead of a generated day")
    parser.add_argument("--grace", type=float, default=90.0, help="seconds after which a slice is closed, as set (default: %(default)s)")
    parser.add_argument("--live", type=int, metavar="SECONDS", help="also load the open slice, so often")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to wait for the next slice (default: %(default)s)")
    args = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(PREFIX)] + ["DAGSTER_HOME"]:
        os.environ.pop(name, None)
    out = Console(width=None if sys.stdout.isatty() else 132)
    with tempfile.TemporaryDirectory(prefix="btc_assets-bench-", ignore_cleanup_errors=True) as made:
        directory = Path(made)
        directory.chmod(0o711)  # the embedded server's user must reach its own directory below it
        os.environ[f"{PREFIX}HOME"] = str(directory / "home")
        os.environ[f"{PREFIX}LANDING_GRACE_SECONDS"] = f"{args.grace:.0f}"
        if args.live:
            os.environ[f"{PREFIX}LIVE_SECONDS"] = str(args.live)
        os.environ[f"{PREFIX}PARTITIONS_START"] = (floor_day(datetime.now(UTC)) - 2 * DAY).strftime(KEY_FORMAT)
        if not run(directory, args, out):
            sys.exit(1)


def run(directory: Path, args: argparse.Namespace, out: Console) -> bool:
    """One play; returns whether the result is right."""
    from btc_assets.market_data.candles import enabled_intervals
    from btc_assets.store.database import Store
    from btc_assets.store.embedded import stop
    from btc_assets.store.migrations import migrate

    settings = load_settings()
    log, slices = directory / "dev.log", directory / "slices.jsonl"
    try:
        with Store.of(settings).connect() as connection, out.status("starting") as status:
            migrate(connection)
            out.print(machine(connection, True, "dagster", "dagster-postgres"), highlight=False)
            with development(directory, log), Watch(Store.of(settings).dsn) as watch:
                wait_for_sensor(connection, log)
                play(directory, args, slices, out, status)
                played = [Played.of(line) for line in slices.read_text().splitlines()]
                outcome = wait_until_loaded(connection, played, enabled_intervals(settings)[-1], args.patience, status)
            status.stop()
            right = show(outcome, connection, settings, args, out)
            if args.live:
                show_ages(watch.ages(connection), args.live, out)
            return right
    finally:
        stop(directory / "home")


if __name__ == "__main__":
    main()
