"""Failures in Dagster: one sentence each, retried only if they may pass by themselves."""

from __future__ import annotations

import dagster as dg
import psycopg
import pytest

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.orchestration.failures import plain_failures
from btc_assets.store.database import connect
from btc_assets_tests.support.stores import StoreUnderTest


@pytest.mark.parametrize(("error", "retried"), [(UserError("Correct it."), False), (TransientError("Wait."), True)])
def test_an_error_of_ours_is_its_sentence_and_retried_if_it_may_pass(error: UserError, retried: bool) -> None:
    with pytest.raises(dg.Failure) as failure, plain_failures():
        raise error
    assert (failure.value.description, failure.value.allow_retries) == (str(error), retried)


def test_a_lost_connection_is_one_sentence_and_may_be_retried(store: StoreUnderTest) -> None:
    with pytest.raises(dg.Failure) as failure, plain_failures(), store.database.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert str(failure.value.description).startswith("The database server ended the connection (")
    assert failure.value.allow_retries and isinstance(failure.value.__cause__, TransientError)


def test_an_error_that_is_not_ours_passes_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), plain_failures():
        1 / 0  # noqa: B018


def test_a_missing_right_is_not_retried(store: StoreUnderTest) -> None:
    store.connection.execute("CREATE ROLE reader_of_little LOGIN")
    try:
        with (
            pytest.raises(dg.Failure) as failure,
            plain_failures(),
            connect(psycopg.conninfo.make_conninfo(store.dsn, user="reader_of_little")) as connection,
        ):
            connection.execute("SELECT * FROM landing.raw_blobs_5m")
        assert "The database user lacks a right" in str(failure.value.description) and not failure.value.allow_retries
    finally:
        store.connection.execute("DROP ROLE reader_of_little")
