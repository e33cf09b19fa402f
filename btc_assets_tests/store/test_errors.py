"""Errors of the server that a person can correct become one sentence; a lost connection is transient; others pass through."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.ticks import TABLE
from btc_assets.store.engines import read_facts
from btc_assets.store.errors import FOR_PEOPLE, TICKS_DROPPED, server_errors
from btc_assets.store.tables import Target, read_columns
from btc_assets_tests.support.stores import StoreUnderTest

NOT_SET_UP = r"^The database is not set up \(.*\): run btc-assets db migrate\.$"


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("SELECT * FROM market_data.none", NOT_SET_UP),
        ("SELECT market_data.none()", NOT_SET_UP),
        ("CREATE TABLE none.none (a int)", NOT_SET_UP),
        (
            "SELECT newer FROM market_data.btc_ticks",
            r"^The database was set up by an older version \(column .*\): run btc-assets db migrate\.$",
        ),
        (
            "SET ROLE pg_monitor; DELETE FROM market_data.btc_ticks",
            r"^The database user lacks a right \(permission denied .*\): have the owner run btc-assets db grant, or name the owner in "
            r"BTC_ASSETS_OWNER_DSN\.$",
        ),
        (
            "DO $$ BEGIN RAISE 'could not write block' USING ERRCODE = 'disk_full'; END $$",
            r"^The database server's disk is full \(could not write block\): free space there and run it again\.$",
        ),
        (
            f"DO $$ BEGIN RAISE 'the ticks of 2 slice(s) were dropped' USING ERRCODE = '{TICKS_DROPPED}'; END $$",
            r"^Candles cannot be rebuilt there: the ticks of 2 slice\(s\) were dropped\. Leave that range out, or load its ticks again first "
            r"\(btc-assets load\)\.$",
        ),
        (f"DO $$ BEGIN RAISE 'Do this.' USING ERRCODE = '{FOR_PEOPLE}'; END $$", r"^Do this\.$"),
    ],
    ids=["no table", "no function", "no schema", "no column", "no right", "disk full", "ticks dropped", "a sentence of our own"],
)
def test_what_a_person_can_correct_is_one_sentence(store: StoreUnderTest, statement: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence), server_errors():
        store.connection.execute(statement)


def test_a_lost_connection_is_transient(store: StoreUnderTest) -> None:
    with store.connect() as victim:
        store.rows("SELECT pg_terminate_backend(%s)", victim.info.backend_pid)
        with (
            pytest.raises(TransientError, match=r"^The database server ended the connection \(.*\): run it again once it is up\.$"),
            server_errors(),
        ):
            victim.execute("SELECT 1")


@pytest.mark.parametrize(
    "look_up",
    [lambda connection: Target.of(connection, TABLE), lambda connection: read_columns(connection, TABLE), read_facts],
    ids=["the target of rows", "the columns of a table", "the facts of the server"],
)
def test_a_connection_lost_while_looking_up_is_transient(store: StoreUnderTest, look_up: Callable[[psycopg.Connection], object]) -> None:
    with store.connect() as victim:
        store.rows("SELECT pg_terminate_backend(%s)", victim.info.backend_pid)
        with pytest.raises(TransientError, match=r"^The database server ended the connection \("):
            look_up(victim)


def test_a_fault_of_our_own_passes_through(store: StoreUnderTest) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero), server_errors():
        store.connection.execute("SELECT 1 / 0")
