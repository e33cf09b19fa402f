"""Problems are state of the store: they stay until they are mended or acknowledged, whichever run found them."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.landing.problems import acknowledge, read_acknowledgements, read_problems, withdraw_acknowledgements
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every

HEADER = b"trade_id,symbol,trade_time,price,quantity,is_market_maker\n"
PATH = "2024/01/10/12/01/batch-x.parquet"
EMPTY = "the object is empty (0 bytes): land it again"
LATER = Window(NOON + SLICE, HOUR.end)


def sentences(store: StoreUnderTest) -> list[str]:
    return [problem.sentence for problem in read_problems(store.connection).shown]


def test_a_store_without_problems_has_none(store: StoreUnderTest) -> None:
    store.land(every(10, 60))
    store.register(HOUR)
    assert sentences(store) == []
    store.load(HOUR)
    assert sentences(store) == []


def test_an_unreadable_object_is_a_problem_whatever_is_loaded_later(store: StoreUnderTest) -> None:
    uri = store.put(PATH, b"")
    store.register(Window.of_slice(NOON))
    store.land(every(10, 60, start=NOON + SLICE))
    store.ingest(LATER)
    (problem,) = read_problems(store.connection).shown
    assert problem[:3] == ("rejected object", uri, "BTCUSDT")
    assert (problem.sentence, problem.command) == (f"{uri}: {EMPTY}", f"btc-assets acknowledge '{uri}'")


def test_an_unreadable_object_that_is_deleted_is_a_problem_no_longer(store: StoreUnderTest) -> None:
    uri = store.put(PATH, b"")
    store.ingest(HOUR)
    store.delete(uri)
    store.register(HOUR)
    assert sentences(store) == []
    assert store.rows("SELECT status, reason FROM landing.raw_blobs_5m") == [("superseded", "deleted after it was rejected")]


def test_a_rewritten_object_is_judged_by_its_new_version(store: StoreUnderTest) -> None:
    uri = store.put(PATH, b"")
    store.register(HOUR)
    assert acknowledge(store.connection, [uri], "the collector crashed") == [uri]
    assert sentences(store) == []
    store.put(PATH, b"no trades at all")
    store.register(HOUR)
    (sentence,) = sentences(store)
    assert sentence.startswith(f"{uri}: ") and EMPTY not in sentence
    store.put(PATH, HEADER + b"1,BTCUSDT,1704888061000,100,1,true\n")
    store.register(HOUR)
    assert sentences(store) == []


def test_rows_that_are_no_trades_are_one_problem_of_their_object_with_the_first_of_them(store: StoreUnderTest) -> None:
    rows = b"".join(b"%d,BTCUSDT,1704888001000,-1,1,true\n" % number for number in range(60))
    uri = store.put(
        "2024/01/10/12/00/batch-a.csv", HEADER + rows + b"61,BTCUSDT,1704888001000,1,1,true\n62,BTCUSDT,1704888301000,1,1,true\n"
    )
    store.ingest(HOUR)
    (sentence,) = sentences(store)
    assert sentence.startswith(f"{uri}: 60 row(s) are no valid trades of the feed, such as row 1: price -1 is not above zero")
    store.delete(uri)
    store.register(HOUR)
    assert sentences(store) == []


def test_an_object_that_disappeared_before_it_was_loaded_is_a_problem_until_it_is_back(store: StoreUnderTest) -> None:
    (uri,) = store.land(every(10, 5), seconds=60)
    store.register(HOUR)
    data = (store.landing / store.zone().path(uri)).read_bytes()
    store.delete(uri)
    store.register(HOUR)
    assert sentences(store) == [f"{uri} disappeared before it was loaded: restore it"]
    (store.landing / store.zone().path(uri)).write_bytes(data)
    store.ingest(HOUR)
    assert sentences(store) == []


def test_a_source_that_is_gone_is_a_problem_while_it_blocks_something_else(store: StoreUnderTest) -> None:
    (uri,) = store.land(every(10, 5), seconds=60)
    store.ingest(HOUR)
    store.delete(uri)
    store.register(HOUR)
    assert sentences(store) == []  # as a lifecycle rule does to all objects
    store.land(every(10, 5, first_id=1000), seconds=60)
    store.register(HOUR)
    (problem,) = read_problems(store.connection).shown
    assert problem.kind == "source gone" and problem.what == uri
    assert problem.command == "btc-assets load --from 2024-01-10T12:00Z --to 2024-01-10T12:05Z --force"


def test_an_acknowledgement_can_be_seen_and_taken_back(store: StoreUnderTest) -> None:
    uri = store.put(PATH, b"")
    store.register(HOUR)
    acknowledge(store.connection, [uri], "the collector crashed")
    (accepted,) = read_acknowledgements(store.connection)
    assert (accepted.kind, accepted.what, accepted.note) == ("rejected object", uri, "the collector crashed") and accepted.by
    assert withdraw_acknowledgements(store.connection, [uri]) == [uri]
    assert sentences(store) == [f"{uri}: {EMPTY}"]


def test_what_is_no_problem_cannot_be_acknowledged(store: StoreUnderTest) -> None:
    uri = store.put(PATH, b"")
    store.register(HOUR)
    with pytest.raises(UserError, match=r"^There is no problem with file:///none: name it as btc-assets status shows it\.$"):
        acknowledge(store.connection, [uri, "file:///none"], "")
    assert sentences(store) == [f"{uri}: {EMPTY}"]
    with pytest.raises(UserError, match=r"^file:///none was not acknowledged: see btc-assets acknowledge --list\.$"):
        withdraw_acknowledgements(store.connection, ["file:///none"])


def test_problems_of_other_feeds_can_be_left_out(store: StoreUnderTest) -> None:
    store.put(PATH, b"")
    store.register(HOUR)
    assert read_problems(store.connection, ["ETHUSDT"]).count == 0
    assert read_problems(store.connection, ["BTCUSDT"]).count == 1


def test_only_the_newest_problems_are_read_and_all_are_counted(store: StoreUnderTest) -> None:
    for number in range(4):
        store.put(f"2024/01/10/12/0{number}/batch-x.parquet", b"")
    store.register(HOUR)
    found = read_problems(store.connection, limit=3)
    assert (len(found.shown), found.count) == (3, 4)


def test_the_problems_of_a_large_registry_are_found_by_an_index(on_each_engine: psycopg.Connection) -> None:
    on_each_engine.execute(
        "INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified, loaded_at) "
        "SELECT %s + number * interval '5 minutes', 'BTCUSDT', 's3://b/' || number, 'e', 1, 1, 'registered', now(), now() "
        "FROM generate_series(1, 20000) AS number",
        (NOON - timedelta(days=100),),
    )
    on_each_engine.execute("UPDATE landing.raw_blobs_5m SET status = 'rejected', loaded_at = NULL, reason = 'bad' WHERE uri = 's3://b/77'")
    on_each_engine.execute("ANALYZE landing.raw_blobs_5m")
    plan = "\n".join(line for (line,) in on_each_engine.execute("EXPLAIN SELECT * FROM landing.problems").fetchall())
    assert "raw_blobs_5m_problems" in plan and "raw_blobs_5m_source_gone" in plan and "Seq Scan on raw_blobs_5m" not in plan
    assert [problem.what for problem in read_problems(on_each_engine).shown] == ["s3://b/77"]
