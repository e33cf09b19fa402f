"""Failures: those that may pass by themselves are retried, the others are not, and each is one sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import dagster as dg
import psycopg
import pytest

from btc_assets.assembly import build_definitions
from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.settings import Settings
from btc_assets.landing.resources import Landing
from btc_assets.landing.zone import LandingZone
from btc_assets.orchestration.failures import RETRIES
from btc_assets.orchestration.partitions import partition_tags
from btc_assets.store.database import connect
from btc_assets_tests.support.fault_proxy import FaultProxy
from btc_assets_tests.support.s3 import Bucket
from btc_assets_tests.support.stores import FEED, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, every

RETRY, FAILED = dg.DagsterEventType.STEP_UP_FOR_RETRY, dg.DagsterEventType.STEP_FAILURE


class Meanwhile:
    """Something that happens while Dagster waits before it retries a step; the wait itself is skipped."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits = 0
        self._then: Callable[[], object] = lambda: None
        monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda policy, attempt: self._wait())

    def _wait(self) -> int:
        self.waits += 1
        self._then()
        return 0

    def __call__(self, then: Callable[[], object]) -> None:
        self._then = then


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    return Meanwhile(monkeypatch)


def ingest(store: StoreUnderTest, *, patient: bool = True, **resources: object) -> dg.ExecuteInProcessResult:
    """The job `ingest` over an hour, as a worker runs it; `resources` replace those of the definitions."""
    built = build_definitions(store.settings, patient=patient)
    definitions = dg.Definitions(
        assets=built.assets,
        asset_checks=built.asset_checks,
        jobs=built.jobs,
        executor=built.executor,
        resources={**(built.resources or {}), **resources},
    )
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_job_def("ingest")
        return job.execute_in_process(instance=instance, tags=partition_tags(HOUR), raise_on_error=False)


def sentences(result: dg.ExecuteInProcessResult, kind: dg.DagsterEventType) -> list[str]:
    """The sentences that a person reads at the steps that are retried, or that failed."""
    return [_sentence(event).strip() for event in result.all_node_events if event.event_type == kind]


def _sentence(event: dg.DagsterEvent) -> str:
    if event.is_step_failure and event.step_failure_data.user_failure_data:
        return event.step_failure_data.user_failure_data.description or ""
    error = event.step_failure_data.error if event.is_step_failure else event.step_retry_data.error
    assert error is not None
    return (error.cause or error).message


@pytest.fixture
def come_back(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The settings point at a server that does not answer until this is called: libpq takes the place from the environment."""
    parts = psycopg.conninfo.conninfo_to_dict(store.dsn)
    place = {name: str(parts.pop(key, "")) for name, key in (("PGHOST", "host"), ("PGPORT", "port"))}
    monkeypatch.setenv("BTC_ASSETS_DSN", psycopg.conninfo.make_conninfo(**{key: str(value) for key, value in parts.items()}))

    def set_place(place: Mapping[str, str]) -> None:
        for name, value in place.items():
            monkeypatch.setenv(name, value)

    set_place({"PGHOST": "127.0.0.1", "PGPORT": "1"})
    return lambda: set_place(place)


def ticks(store: StoreUnderTest) -> int:
    return int(store.rows("SELECT count(*) FROM market_data.btc_ticks")[0][0])


def test_a_server_that_comes_back_before_the_retry_is_no_failure(
    store: StoreUnderTest, come_back: Callable[[], None], meanwhile: Meanwhile
) -> None:
    store.land(every(10, 360), seconds=60)
    meanwhile(come_back)
    result = ingest(store)
    assert result.success and ticks(store) == 360
    (sentence,) = sentences(result, RETRY)
    assert "cannot be reached: start it, or correct BTC_ASSETS_DSN." in sentence


@pytest.mark.usefixtures("come_back", "meanwhile")
def test_a_server_that_stays_away_is_one_failure_after_five_attempts(store: StoreUnderTest) -> None:
    result = ingest(store)
    assert not result.success
    (sentence,) = sentences(result, FAILED)
    assert sentence.endswith("cannot be reached: start it, or correct BTC_ASSETS_DSN.")
    assert len(sentences(result, RETRY)) == RETRIES.max_retries == 4


@pytest.mark.parametrize(
    ("event", "table"),
    [("INSERT", "landing.raw_blobs_5m"), ("INSERT", "market_data.btc_ticks"), ("DELETE", "ingestion.due_slices")],
    ids=["registering", "loading", "refreshing candles"],
)
def test_a_connection_that_is_lost_in_the_middle_is_retried_and_the_result_is_exact(
    store: StoreUnderTest, meanwhile: Meanwhile, event: str, table: str
) -> None:
    store.land(every(10, 360), seconds=60)
    store.connection.execute(
        f"""
        CREATE FUNCTION break_down() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
        CREATE TRIGGER in_the_middle AFTER {event} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION break_down();
        """
    )
    meanwhile(lambda: store.connection.execute(f"DROP TRIGGER in_the_middle ON {table}"))
    result = ingest(store)
    assert result.success and ticks(store) == 360
    (sentence,) = sentences(result, RETRY)
    assert "The database server ended the connection (terminating connection due to administrator command)" in sentence
    assert [evaluation.check_name for evaluation in result.get_asset_check_evaluations() if not evaluation.passed] == []


class LandingBehind(Landing):
    """A landing zone on S3, behind an endpoint, that sends each request once instead of six times, so that the step sees each failure."""

    def __init__(self, settings: Settings, endpoint: str, url: str) -> None:
        super().__init__(settings)
        self.url, self._endpoint = url, endpoint

    def zone(self) -> LandingZone:
        return LandingZone(self.url, endpoint=self._endpoint, retries=0)


@pytest.fixture
def behind_proxy(store: StoreUnderTest, s3: Bucket) -> Iterator[tuple[FaultProxy, LandingBehind]]:
    """Ticks on S3, behind a proxy that fails on demand."""
    store.land(every(10, 360), seconds=600)
    for obj in store.zone().list_all(FEED.prefix):
        s3.zone().put(store.zone().path(obj.uri), (store.landing / store.zone().path(obj.uri)).read_bytes())
    with FaultProxy(s3.server.endpoint) as proxy:
        yield proxy, LandingBehind(store.settings, proxy.endpoint, s3.url)


def test_s3_that_is_too_busy_for_a_moment_is_no_failure(
    store: StoreUnderTest, behind_proxy: tuple[FaultProxy, LandingBehind], meanwhile: Meanwhile
) -> None:
    proxy, landing = behind_proxy
    proxy.fail("503")
    meanwhile(proxy.heal)
    result = ingest(store, landing=landing)
    assert result.success and ticks(store) == 360
    (sentence,) = sentences(result, RETRY)
    assert f"Listing {landing.url}/{FEED.prefix}" in sentence and "Please reduce your request rate" in sentence


def test_a_bucket_that_does_not_exist_fails_at_once(
    store: StoreUnderTest, behind_proxy: tuple[FaultProxy, LandingBehind], meanwhile: Meanwhile
) -> None:
    proxy, landing = behind_proxy
    proxy.fail("404")
    (sentence,) = sentences(ingest(store, landing=landing), FAILED)
    assert "NoSuchBucket" in sentence and meanwhile.waits == 0


def test_wrong_credentials_of_s3_fail_at_once(
    store: StoreUnderTest, behind_proxy: tuple[FaultProxy, LandingBehind], meanwhile: Meanwhile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    (sentence,) = sentences(ingest(store, landing=behind_proxy[1]), FAILED)
    assert "AWS credentials" in sentence and meanwhile.waits == 0


def test_a_failure_that_a_person_must_correct_is_not_retried(store: StoreUnderTest, meanwhile: Meanwhile) -> None:
    store.landing.rmdir()
    result = ingest(store)
    (sentence,) = sentences(result, FAILED)
    assert sentence.startswith(f"The landing zone {store.landing} is not a directory")
    assert (meanwhile.waits, sentences(result, RETRY)) == (0, [])
    assert sum(event.is_step_start for event in result.all_node_events) == 1


@pytest.mark.usefixtures("come_back")
def test_at_a_terminal_nothing_is_retried(store: StoreUnderTest, meanwhile: Meanwhile) -> None:
    result = ingest(store, patient=False)
    (sentence,) = sentences(result, FAILED)
    assert "cannot be reached" in sentence and meanwhile.waits == 0


def test_a_login_that_the_server_refuses_is_not_retried(store: StoreUnderTest) -> None:
    store.connection.execute("CREATE ROLE reader_without_login NOLOGIN")
    try:
        for user in ("nobody_of_that_name", "reader_without_login"):
            with pytest.raises(UserError, match="refused the user or password") as refusal:
                connect(psycopg.conninfo.make_conninfo(store.dsn, user=user))
            assert not isinstance(refusal.value, TransientError)
    finally:
        store.connection.execute("DROP ROLE reader_without_login")
