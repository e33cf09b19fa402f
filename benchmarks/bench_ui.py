"""The pages of an asset in the Dagster UI with a million materialized slices in the event log: a real webserver, a real Chromium.

The event log holds what Dagster itself wrote for the oldest and the newest day, and between them rows of the same shape, written by SQL:
a year of operation, spread over ten assets. The partitions start where a store's do by default, with the previous month; --partitions adds
other starts. The table shows how long a person waits from the address to the last answer: after Dagster's cache of the asset was lost,
again, after one more slice, and after the start of the partitions moved by a month, of which no webserver knew before; and the slowest
queries.
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
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table
from throwaway import machine, store

from btc_assets.domain.settings import PREFIX, default_start, load_settings
from btc_assets.domain.slices import DAY, KEY_FORMAT, SLICE, Window, floor_day

GOAL_SECONDS = 2.0
START_SECONDS = 120
PATIENCE_SECONDS = 300
QUIET_MS = 1500  # a page that asks nothing new for so long is complete
ASSET = "market_data/btc_ticks"
PAGES = {"overview": "", "partitions": "?view=partitions", "checks": "?view=checks", "events": "?view=events"}
DAY_SLICES = DAY // SLICE
MONTH_SLICES = 30 * DAY_SLICES

# Every slice between two others, as a copy of the materialization of the first, with its tags.
_FILL = """
WITH sample AS (
    SELECT * FROM dagster.event_logs WHERE asset_key = %(asset)s AND dagster_event_type = 'ASSET_MATERIALIZATION' AND partition = %(first)s
    ORDER BY id DESC LIMIT 1
), made AS (
    INSERT INTO dagster.event_logs (run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)
    SELECT run_id, replace(event, partition, key), dagster_event_type, timestamp, step_key, asset_key, key
    FROM sample, generate_series(%(start)s::timestamptz, %(end)s::timestamptz, interval '5 minutes') AS bucket,
        LATERAL (SELECT to_char(bucket AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"') AS key) AS named
    RETURNING id, asset_key, timestamp
)
INSERT INTO dagster.asset_event_tags (asset_key, key, value, event_timestamp, event_id)
SELECT made.asset_key, tag.key, tag.value, made.timestamp, made.id
FROM made, sample JOIN dagster.asset_event_tags AS tag ON tag.event_id = sample.id
"""


# ---- stages, each in a process of its own, because a process has one first partition


def fill(assets: int, slices: int) -> None:
    """Fill the event log of some assets with so many slices each; the newest ones are yesterday's."""
    from bench_dagster import run

    from btc_assets.assembly import build_definitions
    from btc_assets.orchestration.home import prepare_dagster_home
    from btc_assets.store.database import Store

    settings = load_settings()
    prepare_dagster_home(settings)
    import dagster as dg

    job = build_definitions(settings).resolve_job_def("ingest")
    keys = sorted(job.asset_layer.executable_asset_keys, key=lambda key: key.to_user_string() != ASSET)[:assets]
    start = settings.first_slice
    end = start + slices * SLICE
    with Store.of(settings).connect() as connection, dg.DagsterInstance.get() as instance:
        connection.execute(
            "TRUNCATE dagster.event_logs, dagster.asset_keys, dagster.asset_event_tags, dagster.asset_check_executions, dagster.runs, "
            "dagster.run_tags"
        )
        run(job, instance, Window(start, start + DAY), keys)
        for key in keys:
            connection.execute(
                _FILL,
                {"asset": key.to_string(), "first": start.strftime(KEY_FORMAT), "start": start + DAY, "end": end - DAY - SLICE},
            )
        run(job, instance, Window(end - DAY, end), keys)
        connection.execute("VACUUM ANALYZE dagster.event_logs, dagster.asset_event_tags, dagster.asset_keys")
        for key in keys:
            (count,) = connection.execute(
                "SELECT count(DISTINCT partition) FROM dagster.event_logs WHERE asset_key = %s AND dagster_event_type = 'ASSET_MATERIALIZATION'",
                (key.to_string(),),
            ).fetchone() or (0,)
            if count != slices:
                raise SystemExit(f"{key.to_user_string()} has {count} slices instead of {slices}")


def add_slice() -> None:
    """Materialize yesterday's last slice again, by a run."""
    import dagster as dg
    from bench_dagster import run

    from btc_assets.assembly import build_definitions

    end = floor_day(datetime.now(UTC))
    with dg.DagsterInstance.get() as instance:
        run(
            build_definitions(load_settings()).resolve_job_def("ingest"),
            instance,
            Window(end - SLICE, end),
            [dg.AssetKey(ASSET.split("/"))],
        )


def run_stage(*arguments: object) -> None:
    """Run a stage in a process of its own."""
    if subprocess.run([sys.executable, __file__, "--stage", *map(str, arguments)]).returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))} failed: see above")


# ---- the webserver and the browser


@contextmanager
def webserver(directory: Path) -> Iterator[str]:
    """Address of a webserver that has loaded the project's code location."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address, log = f"http://127.0.0.1:{port}", directory / "webserver.log"
    command = [str(Path(sys.executable).with_name("dagster-webserver")), "-m", "btc_assets.definitions", "-h", "127.0.0.1", "-p", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{address}/server_info", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"the webserver does not start: {log.read_text()[-2000:]}") from None
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


@dataclass
class Visit:
    """A page that was opened: seconds until its last answer, and each query with its seconds and the size of its answer in MB."""

    seconds: float = 0.0
    queries: list[tuple[str, float, float]] = field(default_factory=list)

    def slowest(self, count: int) -> str:
        """The slowest queries."""
        return ", ".join(f"{name} {seconds:.2f}" for name, seconds, _ in sorted(self.queries, key=lambda query: -query[1])[:count])

    def megabytes(self) -> float:
        return sum(size for _, _, size in self.queries)


class Browser:
    """A Chromium, and the queries that its page sends to the webserver."""

    def __init__(self, driver: Any) -> None:
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if path is None:
            raise SystemExit("there is no Chromium on the PATH: install it")
        self._browser = driver.chromium.launch(executable_path=path, args=["--headless", "--no-sandbox", "--disable-gpu"])
        self.page = self._browser.new_page(viewport={"width": 1500, "height": 950}, timezone_id="UTC")
        self.page.set_default_timeout(PATIENCE_SECONDS * 1e3)
        self._asked: dict[Any, float] = {}
        self._answers: list[tuple[Any, float, float]] = []
        self._seen: set[str] = set()
        self._last = 0.0
        self.page.on("request", self._ask)
        self.page.on("requestfinished", self._answer)
        self.page.on("requestfailed", lambda request: self._asked.pop(request, None))

    def _ask(self, request: Any) -> None:
        # A query that is sent again keeps the page up to date; nobody waits for it.
        if "/graphql" in request.url and request.post_data not in self._seen:
            self._seen.add(request.post_data)
            self._asked[request] = self._last = time.perf_counter()

    def _answer(self, request: Any) -> None:
        if (asked := self._asked.pop(request, None)) is not None:
            self._last = time.perf_counter()
            self._answers.append((request, asked, self._last))

    def visit(self, address: str) -> Visit:
        """Open a page and wait until it has sent no new query for a while.

        Raises:
            SystemExit: the page is never complete.
        """
        self._asked, self._answers, self._seen = {}, [], set()
        started = self._last = time.perf_counter()
        self.page.goto(address)
        while not self._answers or self._asked or (time.perf_counter() - self._last) * 1e3 < QUIET_MS:
            self.page.wait_for_timeout(20)
            if time.perf_counter() - started > PATIENCE_SECONDS:
                raise SystemExit(f"{address} is not complete after {PATIENCE_SECONDS} s")
        visit = Visit(self._last - started)
        for request, asked, answered in self._answers:
            name = (request.post_data_json or {}).get("operationName") or "?"
            visit.queries.append((name, answered - asked, request.sizes()["responseBodySize"] / 1e6))
        return visit

    def close(self) -> None:
        self._browser.close()


# ---- the process that measures


def measure(out: Console, table: Table, directory: Path, connection: psycopg.Connection, assets: int, args: argparse.Namespace) -> None:
    """Measure one layout: fill the log, then open the pages with the default start of the partitions, and with others."""
    slices = args.slices // assets // DAY_SLICES * DAY_SLICES
    now = datetime.now(UTC)
    default = (floor_day(now) - default_start(now)) // SLICE
    set_partitions(slices)
    with out.status(f"{assets} x {slices:,}: filling"):
        run_stage("fill", assets, slices)
    for partitions in (default, *args.partitions):
        if partitions > slices:
            raise SystemExit(f"{partitions:,} partitions are more than the {slices:,} slices: give more --slices")
        layout = f"{assets} x {slices:,}, {partitions:,} of them" + (" (default)" if partitions == default else "")
        with out.status(f"{layout}: opening"):
            # A month more at first, so that the visit of the next webserver is the first one after the start moved.
            list(open_pages(layout, directory, connection, args, min(slices, partitions + MONTH_SLICES), brief=True))
            for name, visits in open_pages(layout, directory, connection, args, partitions):
                add_row(table, layout, name, visits)


def set_partitions(count: int) -> None:
    """Let the partitions be the newest ones, up to yesterday's last."""
    os.environ[f"{PREFIX}PARTITIONS_START"] = (floor_day(datetime.now(UTC)) - count * SLICE).strftime(KEY_FORMAT)


def open_pages(
    layout: str, directory: Path, connection: psycopg.Connection, args: argparse.Namespace, partitions: int, *, brief: bool = False
) -> Iterator[tuple[str, Visits]]:
    """Start a webserver for which so many partitions exist, and open the pages; if brief, the overview once."""
    from playwright.sync_api import sync_playwright

    set_partitions(partitions)
    with webserver(directory) as address, sync_playwright() as driver:
        browser = Browser(driver)
        for number, (name, view) in enumerate(PAGES.items()):
            url = f"{address}/assets/{ASSET}{view}"
            browser.visit(f"{address}/runs")  # loads the page's scripts, and warms up Chromium
            moved = browser.visit(url) if number == 0 else None
            if brief:
                break
            connection.execute("UPDATE dagster.asset_keys SET cached_status_data = NULL")
            cold = browser.visit(url)
            warm = [browser.visit(url) for _ in range(args.repeat)]
            run_stage("add-slice", 0, 0)
            visits = Visits(moved, cold, warm, browser.visit(url))
            if args.screenshots:
                browser.page.screenshot(path=args.screenshots / f"{layout} {name}.png")
            yield name, visits
        browser.close()


@dataclass
class Visits:
    """The visits of a page: the first one after the start moved (of one page alone), cold, again, and after a further slice."""

    moved: Visit | None
    cold: Visit
    warm: list[Visit]
    after: Visit


def add_row(table: Table, layout: str, page: str, visits: Visits) -> None:
    """Write the visits of a page."""
    again = statistics.median(visit.seconds for visit in visits.warm)
    moved = [visits.moved.seconds] if visits.moved else []
    met = "met" if max(again, visits.cold.seconds, visits.after.seconds, *moved) <= GOAL_SECONDS else "MISSED"
    table.add_row(
        layout,
        page,
        f"{moved[0]:.2f}" if moved else "",
        f"{visits.cold.seconds:.2f}",
        f"{again:.2f}",
        f"{visits.after.seconds:.2f}",
        f"{visits.warm[0].megabytes():.1f}",
        f"<= {GOAL_SECONDS:.0f}: {met}",
        visits.cold.slowest(3),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=1_000_000, help="materialized slices in the event log (default: %(default)s)")
    parser.add_argument("--assets", type=int, nargs="+", default=[10], help="over how many assets they are spread, in turn")
    parser.add_argument(
        "--partitions", type=int, nargs="*", default=[99_936], help="numbers of partitions besides the default (default: %(default)s)"
    )
    parser.add_argument("--repeat", type=int, default=3, help="visits of a page that was open before (default: %(default)s)")
    parser.add_argument("--screenshots", type=Path, help="leave pictures of the pages in this directory")
    parser.add_argument("--stage", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        stage, assets, slices = args.stage
        fill(int(assets), int(slices)) if stage == "fill" else add_slice()
        return
    out = Console(width=None if sys.stdout.isatty() else 160)
    with store() as (directory, embedded):
        from btc_assets.orchestration.home import prepare_dagster_home
        from btc_assets.store.database import Store
        from btc_assets.store.migrations import migrate

        settings = load_settings()
        prepare_dagster_home(settings)
        table = Table(
            "assets x slices, partitions",
            "page",
            "start moved (s)",
            "cold cache (s)",
            "again (s)",
            "after a slice (s)",
            "answers (MB)",
            "goal",
            "slowest queries (s)",
        )
        with Store.of(settings).connect() as connection:
            migrate(connection)
            out.print(machine(connection, embedded, "dagster-webserver", "playwright"), highlight=False)
            for assets in args.assets:
                measure(out, table, directory, connection, assets, args)
        out.print(table)


if __name__ == "__main__":
    main()
