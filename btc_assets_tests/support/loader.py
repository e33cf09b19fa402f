"""A loader that can be killed: registers and loads a range and makes its candles, in a process of its own.

`python -m btc_assets_tests.support.loader START END` prints `ready` and waits for a line on its standard input, so that the test decides
when it begins. Then it prints each phase as that begins, and `done`. It uses the store that the settings name.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

import psycopg

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import load_settings
from btc_assets.domain.slices import Window, parse_time
from btc_assets.domain.ticks import TABLE
from btc_assets.landing import reading
from btc_assets.landing.registration import RegisterOptions, register_window
from btc_assets.landing.resources import Landing
from btc_assets.landing.zone import LandingZone
from btc_assets.market_data import candles
from btc_assets.market_data.derived import Derivation
from btc_assets.market_data.early_load import loading_early
from btc_assets.market_data.keys import candles_key
from btc_assets.market_data.loading import LoadOptions, TickLoad
from btc_assets.market_data.partial_candles import CandlesOfTicks
from btc_assets.signals.features.derivation import FeaturesOfTicks
from btc_assets.signals.keys import SLICE_FEATURES
from btc_assets.store.database import Store
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.waiting import PATIENCE_SECONDS, wait_for

NAME = "fault-loader"  # of its sessions on the server
PHASES = ("registering", "loading", "refreshing", "done")


def load_range(
    window: Window, *, zone: LandingZone | None = None, reread: bool = False, report: Callable[[str], object] = lambda phase: None
) -> None:
    """Do what a run of the job `ingest` does with a range of slices.

    Args:
        window: the slices.
        zone: the landing zone; that of the settings unless given.
        reread: read objects again that are registered or rejected.
        report: called with each of `PHASES` as it begins.

    Raises:
        UserError: the landing zone or the server fails.
    """
    settings = load_settings()
    store = Store(Store.of(settings).dsn, application_name=NAME)
    zone, feeds = zone or Landing(settings).zone(), settings.landing_feeds
    report("registering")
    with store.connect() as connection:
        followers = [*(candles_key(interval) for interval in candles.INTERVALS), SLICE_FEATURES]
        derivations: list[Derivation] = [FeaturesOfTicks(), CandlesOfTicks(list(candles.INTERVALS))]
        load = TickLoad(store, zone, feeds, window, LoadOptions(settings.commit_rows, followers, derivations=derivations))
        with loading_early(load, settings.landing_margin, settings.writers) as on_settled:
            register_window(connection, zone, feeds, window, RegisterOptions(settings.landing_margin, reread, on_settled=on_settled))
        report("loading")
        replace_all(connection, Target.of(connection, TABLE), load, writers=settings.writers, store=store)
        report("refreshing")
        for interval in candles.INTERVALS:
            candles.refresh_due_candles(connection, interval, window)
    report("done")


class Loader:
    """The loader's process; leaving the context kills it if it still runs.

    Attributes:
        phase: the last one that it is known to have begun.
    """

    def __init__(self, window: Window) -> None:
        self.phase = "starting"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "btc_assets_tests.support.loader", window.start.isoformat(), window.end.isoformat()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(PROJECT)},
        )  # fmt: skip

    def wait_until(self, phase: str) -> None:
        """Wait until a phase begins."""
        assert self._process.stdout is not None
        while self.phase != phase:
            if not (line := self._process.stdout.readline()):
                raise RuntimeError(f"the loader ended while {self.phase}: {self._process.communicate()[1]}")
            self.phase = line.strip()

    def go(self) -> None:
        """Let the loader begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()

    def wait(self) -> tuple[int, str]:
        """Wait for the end of the process; returns its exit status and what it wrote to stderr."""
        output, errors = self._process.communicate(timeout=PATIENCE_SECONDS)
        self.phase = (output.splitlines() or [self.phase])[-1]
        return self._process.returncode, errors

    def __enter__(self) -> Self:
        self.wait_until("ready")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()


def wait_until_its_sessions_end(connection: psycopg.Connection) -> None:
    """Wait until the server has noticed that the loader was killed; until then it may still commit what the loader sent."""
    sessions = "SELECT 1 FROM pg_stat_activity WHERE application_name = %s"
    wait_for(lambda: not connection.execute(sessions, (NAME,)).fetchone(), "no session of the loader is open", interval=0.005)


def main(arguments: list[str]) -> int:
    os.environ["OMP_NUM_THREADS"] = "1"
    reading._GROUP_OBJECTS = 8  # so that an hour is loaded while it is registered
    window = Window(*map(parse_time, arguments))
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        load_range(window, report=lambda phase: print(phase, flush=True))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
