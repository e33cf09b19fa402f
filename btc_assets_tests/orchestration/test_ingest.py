"""Running the job `ingest` in this process: its report, and the sentence of a failure."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from btc_assets.assembly import LOADING_ASSETS
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.ingest import FailedCheck, IngestOptions, IngestReport, ingest, last_failure
from btc_assets.orchestration.partitions import Partitions
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every


def run_ingest(store: StoreUnderTest, window: Window, options: IngestOptions | None = None) -> IngestReport:
    prepare_dagster_home(store.settings)
    return ingest(store.definitions, LOADING_ASSETS, Partitions.of(store.settings), window, options or IngestOptions())


def test_the_report_counts_what_was_loaded_and_the_run_is_recorded(store: StoreUnderTest) -> None:
    store.land(every(1, 450))
    report = run_ingest(store, HOUR)
    assert (report.window, report.objects, report.slices, report.ticks) == (HOUR, 30, 2, 450)
    assert report.checks == 15 and report.checks_passed and report.seconds > 0
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs()
        assert run.is_success and run.job_name == "ingest"


def test_failed_checks_are_reported_with_their_problems(store: StoreUnderTest) -> None:
    store.land(every(1, 60))
    uri = store.put("2024/01/10/12/00/batch-x.parquet", b"")
    report = run_ingest(store, HOUR)
    assert not report.checks_passed
    sentence = f"{uri}: the object is empty (0 bytes): land it again"
    assert report.failed_checks == {
        "landing/raw_blobs_5m no_open_problem": FailedCheck(HOUR, "open", 1, [sentence]),
        "landing/raw_blobs_5m no_rejected_object": FailedCheck(HOUR, "objects", 1, [sentence]),
    }


def test_options_reach_the_assets_that_take_them(store: StoreUnderTest) -> None:
    (uri,) = store.land(every(1, 10))
    run_ingest(store, HOUR)
    store.delete(uri)
    with pytest.raises(UserError, match="is gone: restore it"):
        run_ingest(store, HOUR)
    assert run_ingest(store, HOUR, IngestOptions(force=True)).ticks == 0


def test_a_failed_run_is_the_sentence_of_its_step_and_found_again(store: StoreUnderTest) -> None:
    prepare_dagster_home(store.settings)
    assert last_failure() is None
    store.landing.rmdir()
    with pytest.raises(UserError, match=rf"^The landing zone {store.landing} is not a directory: create it") as failure:
        run_ingest(store, Window.of_slice(NOON))
    found = last_failure()
    assert found is not None and found.endswith(f", ingest: {failure.value}")


def test_a_range_that_starts_before_the_history_is_refused(store: StoreUnderTest) -> None:
    early = datetime(2015, 1, 1, tzinfo=UTC)
    with pytest.raises(UserError, match=r"before the history of this store: set BTC_ASSETS_HISTORY_START=2015-01-01 or earlier\.$"):
        run_ingest(store, Window(early, early + SLICE))
