"""What the doctor finds in the database."""

from __future__ import annotations

import psycopg

from btc_assets.ops.database_findings import examine_database
from btc_assets_tests.support.stores import StoreUnderTest


def test_missing_rights_are_named_and_the_rest_is_examined(store: StoreUnderTest) -> None:
    with psycopg.connect(store.dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE reader_of_findings")
        try:
            connection.execute("GRANT SELECT ON landing.raw_blobs_5m TO reader_of_findings")
            connection.execute("SET ROLE reader_of_findings")
            found = {finding.subject: finding for finding in examine_database(connection, store.settings)}
            rights = found["rights"]
            assert rights.state == "problem"
            assert rights.text.startswith("reader_of_findings lacks USAGE on schema ") and rights.text.endswith(
                ": have the owner run btc-assets db grant --loader reader_of_findings."
            )
            assert "INSERT on landing.raw_blobs_5m" in rights.text and "SELECT on landing.raw_blobs_5m" not in rights.text
            assert found["owner"].text.startswith("reader_of_findings does not own market_data.btc_ticks, market_data.candle_partials_")
            assert found["migrations"].text.startswith("The database user lacks a right (permission denied for schema ops)")
            assert {"engine", "policies", "server disk", "server clock"} <= found.keys()
        finally:
            connection.execute("RESET ROLE")
            connection.execute("DROP OWNED BY reader_of_findings; DROP ROLE reader_of_findings")
