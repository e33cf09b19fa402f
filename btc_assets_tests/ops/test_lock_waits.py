"""A reader who leaves a transaction open holds up nobody for long: what would wait for its locks gives up and says who is in the way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from btc_assets.domain.errors import TransientError
from btc_assets.domain.slices import DAY, Window, floor_day
from btc_assets.ops.policies import TICKS
from btc_assets.ops.retention_jobs import apply_policies, run_policy
from btc_assets.store.locks import LOCK_WAIT
from btc_assets.store.migrations import migrate
from btc_assets.store.sql_files import SQL_DIR
from btc_assets_tests.support.policies import DECLARED
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import every

OLD = floor_day(datetime.now(UTC)) - 95 * DAY
TODAY = floor_day(datetime.now(UTC)) - DAY


def load_day(store: StoreUnderTest, day: datetime, first_id: int) -> None:
    store.land(every(1, 100, start=day, first_id=first_id))
    store.ingest(Window(day, day + timedelta(minutes=5)))


def test_an_open_transaction_of_a_reader_keeps_old_days_until_next_time_and_loading_goes_on(store: StoreUnderTest) -> None:
    load_day(store, OLD, 1)
    apply_policies(store.connection, DECLARED)
    with psycopg.connect(store.dsn, application_name="notebook") as reader:
        since = reader.execute("SELECT count(*), now() FROM market_data.btc_ticks").fetchone()
        assert since is not None and since[0] == 100
        run_policy(store.connection, f"drop {TICKS}")
        ((result,),) = store.rows("SELECT last_result FROM ops.retention_jobs WHERE job_name = %s", f"drop {TICKS}")
        assert result == (
            f"kept 1 day(s) of market_data.btc_ticks that are old enough to drop, the first {OLD:%Y-%m-%d}, which is in use by "
            f"session {reader.info.backend_pid} (user {reader.info.user}, application notebook, in a transaction since "
            f"{since[1].astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}): it is dropped next time"
        )
        load_day(store, TODAY, 1000)
    run_policy(store.connection, f"drop {TICKS}")
    assert store.rows("SELECT count(*), min(trade_id) FROM market_data.btc_ticks") == [(100, 1000)]
    assert store.rows("SELECT last_result FROM ops.retention_jobs WHERE job_name = %s", f"drop {TICKS}") == [
        ("ok, dropped 1 day(s) of market_data.btc_ticks",)
    ]


def test_a_migration_that_waits_for_a_reader_gives_up_and_names_the_session(
    store: StoreUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tmp_path / "sql"
    for file in SQL_DIR.rglob("*.sql"):
        copy = files / file.relative_to(SQL_DIR)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    last = max(int(file.name[:4]) for file in files.glob("*/[0-9]*.sql"))
    (files / "common" / f"{last + 1:04d}_note.sql").write_text("ALTER TABLE market_data.btc_ticks ADD COLUMN note text;")
    monkeypatch.setattr("btc_assets.store.locks.LOCK_WAIT", "100ms")
    with psycopg.connect(store.dsn, application_name="notebook") as reader:
        reader.execute("SELECT count(*) FROM market_data.btc_ticks")
        with store.connect() as connection, pytest.raises(TransientError) as refused:
            migrate(connection, files)
        session = f"session {reader.info.backend_pid} (user {reader.info.user}, application notebook, in a transaction since "
        assert str(refused.value).startswith(f"The migration waited {LOCK_WAIT} for a table that {session}")
    with store.connect() as connection:
        assert f"{last + 1:04d}_note" in migrate(connection, files)
