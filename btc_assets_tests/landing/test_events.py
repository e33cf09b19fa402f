"""S3 events: what they name is noticed, nothing that is in the queue does harm, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import quote_plus

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.feeds import Feed, Feeds
from btc_assets.landing.arrivals import read_waiting_slices
from btc_assets.landing.events import Malformed, Received, created_objects, receive
from btc_assets.landing.registration import RegisterOptions, register_window
from btc_assets.simulation.batches import encode_batch
from btc_assets_tests.support.daemon import Daemon
from btc_assets_tests.support.s3_events import RECEIVES, EventsUnderTest
from btc_assets_tests.support.stores import FEED, FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every

MINUTE = "2024/01/10/12/00"
NO_GRACE = timedelta(0)


def read(store: StoreUnderTest, events: EventsUnderTest, *feeds: Feed) -> Received:
    with store.connect() as connection:
        return receive(connection, events.zone(), Feeds(feeds or FEEDS), events.client, events.url)


def noticed(store: StoreUnderTest) -> list[tuple[datetime, str]]:
    return store.rows("SELECT bucket_5m, uri FROM landing.raw_blobs_5m WHERE status = 'noticed' ORDER BY uri")


def due(store: StoreUnderTest) -> list[datetime]:
    return [one.bucket for one in read_waiting_slices(store.connection, datetime.now(UTC) + timedelta(hours=1), grace=NO_GRACE).due]


def event(bucket: str, key: str, name: str = "ObjectCreated:Put") -> str:
    return json.dumps({"Records": [{"eventName": name, "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}]})


def test_an_object_that_is_put_is_noticed_and_its_slice_due(store: StoreUnderTest, events: EventsUnderTest) -> None:
    uri = events.put(f"{MINUTE}/batch-1.parquet")
    assert read(store, events) == Received(messages=1, noticed=1)
    assert noticed(store) == [(NOON, uri)] and due(store) == [NOON]
    assert events.left() == 0


def test_an_object_in_a_folder_of_long_ago_where_no_listing_looks_is_noticed(store: StoreUnderTest, events: EventsUnderTest) -> None:
    events.put("2018/03/04/05/06/batch-1.parquet")
    assert read(store, events).noticed == 1
    assert due(store) == [datetime(2018, 3, 4, 5, 5, tzinfo=UTC)]


@pytest.mark.parametrize("name", ["a b+c=d.parquet", "ü 100%25 ~#?&.parquet", "..parquet"], ids=repr)
def test_a_key_is_decoded_as_s3_encoded_it(store: StoreUnderTest, events: EventsUnderTest, name: str) -> None:
    uri = events.put(f"{MINUTE}/{name}")
    read(store, events)
    shown = [(NOON, obj.uri) for obj in events.zone().list_all(FEED.prefix) if obj.folder_time]
    assert noticed(store) == shown == ([] if name.startswith("..") else [(NOON, uri)])
    assert events.left() == 0


def test_many_objects_are_noticed_at_once(store: StoreUnderTest, events: EventsUnderTest) -> None:
    for number in range(105):
        events.put(f"{MINUTE}/batch-{number}.parquet")
    assert read(store, events) == Received(messages=105, noticed=105)
    assert events.left() == 0


def test_a_multipart_upload_and_a_copy_are_noticed(store: StoreUnderTest, events: EventsUnderTest) -> None:
    client, bucket, key = events.s3, events.bucket.server.bucket, events.key(f"{MINUTE}/large.parquet")
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    part = client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"data")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    client.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload=parts)
    client.copy_object(Bucket=bucket, Key=events.key(f"{MINUTE}/copy.parquet"), CopySource=f"{bucket}/{key}")
    assert read(store, events).noticed == 2


def test_messages_that_come_twice_or_again_change_nothing(store: StoreUnderTest, events: EventsUnderTest) -> None:
    events.put(f"{MINUTE}/batch-1.parquet")
    (body,) = events.take()
    events.send(body, body)
    assert read(store, events) == Received(messages=2, noticed=1)
    events.send(body)
    assert read(store, events) == Received(messages=1, noticed=0)
    assert events.left() == 0


def test_an_older_versions_event_after_the_newer_ones_changes_nothing(store: StoreUnderTest, events: EventsUnderTest) -> None:
    path, data = encode_batch(every(1, 10), FEED)
    path = path.removeprefix(f"{FEED.prefix}/")
    events.put(path, data)
    (older,) = events.take()
    events.put(path, encode_batch(every(1, 20), FEED)[1])
    read(store, events)
    register_window(store.connection, events.zone(), FEEDS, HOUR, RegisterOptions(timedelta(minutes=5)))
    events.send(older)
    assert read(store, events) == Received(messages=1, noticed=0)
    assert store.rows("SELECT status, row_count FROM landing.raw_blobs_5m") == [("registered", 20)]


def test_an_object_deleted_before_its_message_is_read_is_no_work(store: StoreUnderTest, events: EventsUnderTest) -> None:
    events.put(f"{MINUTE}/batch-1.parquet")
    events.delete(f"{MINUTE}/batch-1.parquet")
    assert read(store, events) == Received(messages=2)
    assert (noticed(store), events.left()) == ([], 0)


def test_messages_that_do_not_concern_us_are_deleted(store: StoreUnderTest, events: EventsUnderTest) -> None:
    events.put_key("feeds/Other/ETHUSDT/2024/01/10/12/00/batch-1.parquet")
    events.put_key("elsewhere/Binance/BTCUSDT/2024/01/10/12/00/batch-1.parquet")
    events.send(
        event("another-bucket", f"feeds/{FEED.prefix}/{MINUTE}/batch-1.parquet"),
        event(events.bucket.server.bucket, events.key(f"{MINUTE}/batch-1.parquet"), "ObjectRemoved:Delete"),
        json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "landing"}),
        json.dumps({"detail-type": "Object Deleted", "detail": {}}),
    )
    assert read(store, events) == Received(messages=6, foreign=3)
    assert (noticed(store), events.left()) == ([], 0)


@pytest.mark.parametrize("path", ["README.md", "2024/01/10/12/00/odd/x.parquet", "2024/13/45/x.parquet", f"{MINUTE}//x", f"{MINUTE}/"])
def test_what_a_listing_passes_over_is_not_noticed_either(store: StoreUnderTest, events: EventsUnderTest, path: str) -> None:
    events.put(path)
    assert read(store, events) == Received(messages=1, strays=int("//" in path), foreign=int("//" not in path))
    assert (noticed(store), events.left()) == ([], 0)


@pytest.mark.parametrize("name", ["a%0Ab", "a%5Cb", "%FF", "..", "a%2F..%2Fb", "%2F%2F", "%7F"])
def test_a_key_that_no_landing_zone_can_hold_does_no_harm(store: StoreUnderTest, events: EventsUnderTest, name: str) -> None:
    events.send(event(events.bucket.server.bucket, f"{events.key(MINUTE)}/{name}"))
    assert read(store, events).noticed == 0
    assert events.left() == 0


def test_files_that_are_not_whole_yet_are_not_noticed(store: StoreUnderTest, events: EventsUnderTest) -> None:
    events.put(f"{MINUTE}/.batch-1.parquet.Xy12")
    assert read(store, events) == Received(messages=1)
    assert (noticed(store), events.left()) == ([], 0)


def test_messages_that_nobody_can_read_stay_and_end_in_the_dead_letter_queue(store: StoreUnderTest, events: EventsUnderTest) -> None:
    good = event(events.bucket.server.bucket, events.key(f"{MINUTE}/batch-1.parquet"))
    events.put(f"{MINUTE}/batch-1.parquet")
    events.take()
    bad = ["no JSON", '{"some": "thing"}', "[]", good[:-9], event(events.bucket.server.bucket, "x%00y")]
    events.send(bad[0], good, *bad[1:])
    first = read(store, events)
    assert (first.messages, first.noticed) == (6, 1)
    assert [reason.partition(": ")[2].partition(" (")[0] for reason in first.left] == [
        "no JSON", "no S3 event", "no JSON object", "no JSON", "no S3 event",
    ]  # fmt: skip
    for _ in range(RECEIVES):
        assert (events.left(), events.dead()) == (5, [])
        events.show_again()
        last = read(store, events)
    assert last.messages == 0
    assert sorted(events.dead()) == sorted(bad)


def test_events_may_come_by_way_of_sns_or_eventbridge(store: StoreUnderTest, events: EventsUnderTest) -> None:
    uris = [events.put(f"{MINUTE}/a b{number}.parquet") for number in range(2)]
    by_s3, _ = events.take()
    bucket, key = events.bucket.server.bucket, events.key(f"{MINUTE}/a b1.parquet")  # EventBridge does not encode it
    events.send(
        json.dumps({"Type": "Notification", "TopicArn": "arn:aws:sns:us-east-1:1:landing", "Message": by_s3}),
        json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": {"bucket": {"name": bucket}, "object": {"key": key}}}),
    )
    assert read(store, events) == Received(messages=2, noticed=2)
    assert noticed(store) == [(NOON, uri) for uri in uris]


def test_each_prefix_is_noticed_for_its_own_feed(store: StoreUnderTest, events: EventsUnderTest) -> None:
    events.put(f"{MINUTE}/batch-1.parquet")
    events.put_key(f"feeds/BinanceUM/BTCUSDT/{MINUTE}/batch-1.parquet")
    read(store, events, FEED, Feed("BinanceUM/BTCUSDT", "BTCUSDT", "BTCUSDT.P"))
    assert store.rows("SELECT asset FROM landing.raw_blobs_5m ORDER BY 1") == [("BTCUSDT",), ("BTCUSDT.P",)]


def test_a_commit_that_fails_loses_nothing(store: StoreUnderTest, events: EventsUnderTest) -> None:
    uri = events.put(f"{MINUTE}/batch-1.parquet")
    store.connection.execute(
        """
        CREATE FUNCTION break_down() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON landing.raw_blobs_5m
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION break_down();
        """
    )
    with pytest.raises(TransientError, match="The database server ended the connection"):
        read(store, events)
    assert (noticed(store), events.left()) == ([], 1)
    store.connection.execute("DROP TRIGGER at_commit ON landing.raw_blobs_5m")
    assert read(store, events).messages == 0  # hidden from others for as long as the first reader might work on it
    events.show_again()
    assert read(store, events).noticed == 1
    assert (noticed(store), events.left()) == ([(NOON, uri)], 0)


def test_a_long_queue_is_left_for_the_next_tick_when_the_time_is_up(store: StoreUnderTest, events: EventsUnderTest) -> None:
    events.send(*['{"Event": "s3:TestEvent"}'] * 101)
    ticking = iter(range(0, 10_000, 1000))
    received = receive(store.connection, events.zone(), FEEDS, events.client, events.url, clock=lambda: next(ticking))
    assert (received.messages, events.left()) == (100, 1)


@pytest.fixture
def queue_in_settings(store: StoreUnderTest, events: EventsUnderTest, monkeypatch: pytest.MonkeyPatch) -> EventsUnderTest:
    monkeypatch.setenv("BTC_ASSETS_LANDING_EVENTS_QUEUE", events.url)
    monkeypatch.setenv("BTC_ASSETS_LANDING_URL", events.bucket.url)
    monkeypatch.setenv("BTC_ASSETS_S3_ENDPOINT", events.bucket.server.endpoint)
    return events


@pytest.fixture
def evaluate(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str | None]:
    """Evaluates the sensor with the environment's settings; it requests nothing and says what it did."""

    def evaluate() -> str | None:
        daemon = Daemon(store, "landing_events", monkeypatch)
        try:
            assert daemon.tick() == []
            return daemon.skipped
        finally:
            daemon.close()

    return evaluate


def test_the_sensor_reads_the_queue_and_says_what_it_found(
    store: StoreUnderTest, queue_in_settings: EventsUnderTest, evaluate: Callable[[], str | None]
) -> None:
    uri = queue_in_settings.put(f"{MINUTE}/batch-1.parquet")
    queue_in_settings.send("no JSON", event("another-bucket", "x"))
    assert evaluate() == "3 messages: 1 objects noticed, 1 foreign, 1 unreadable."
    assert noticed(store) == [(NOON, uri)]


def test_the_sensor_without_a_queue_says_how_to_name_one(evaluate: Callable[[], str | None]) -> None:
    assert evaluate() == "No queue is set: name one in BTC_ASSETS_LANDING_EVENTS_QUEUE."


@pytest.mark.parametrize(
    ("url", "endpoint"), [("{}-missing", None), ("http://127.0.0.1:1/1/landing", "http://127.0.0.1:1")], ids=["missing", "unreachable"]
)
def test_a_queue_that_cannot_be_read_is_one_sentence(
    queue_in_settings: EventsUnderTest,
    evaluate: Callable[[], str | None],
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    endpoint: str | None,
) -> None:
    url = url.format(queue_in_settings.url)
    monkeypatch.setenv("BTC_ASSETS_LANDING_EVENTS_QUEUE", url)
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", endpoint)
    with pytest.raises(dg.Failure) as failure:
        evaluate()
    assert str(failure.value.description).startswith(f"The queue {url} cannot be read (")
    assert str(failure.value.description).endswith(
        "): check BTC_ASSETS_LANDING_EVENTS_QUEUE and the permission to receive and delete its messages."
    )
    # A server that does not answer may do so soon; a queue that does not exist will not.
    cause = failure.value.__cause__
    assert isinstance(cause, UserError) and isinstance(cause, TransientError) == bool(endpoint)


def test_a_lost_database_leaves_the_messages(store: StoreUnderTest, events: EventsUnderTest) -> None:
    events.put(f"{MINUTE}/batch-1.parquet")
    with store.connect() as connection, pytest.raises(TransientError):
        store.connection.execute("SELECT pg_terminate_backend(%s, 10000)", (connection.info.backend_pid,))
        receive(connection, events.zone(), FEEDS, events.client, events.url)
    assert events.left() == 1


names = st.one_of(st.text(), st.none(), st.integers(), st.lists(st.text()), st.dictionaries(st.text(), st.text()))
records = st.fixed_dictionaries(
    {}, optional={"eventName": names | st.just("ObjectCreated:Put"), "s3": names | st.fixed_dictionaries({
        "bucket": names | st.fixed_dictionaries({"name": names}), "object": names | st.fixed_dictionaries({"key": names})})}
)  # fmt: skip
bodies = st.fixed_dictionaries(
    {},
    optional={
        "Records": names | st.lists(records), "Event": names, "Type": names | st.just("Notification"), "Message": names,
        "detail-type": names | st.just("Object Created"),
        "detail": names | st.fixed_dictionaries({"bucket": names | st.fixed_dictionaries({"name": names}),
                                                 "object": names | st.fixed_dictionaries({"key": names})}),
    },
)  # fmt: skip


@given(st.text() | bodies.map(json.dumps) | bodies.map(lambda body: json.dumps({"Type": "Notification", "Message": json.dumps(body)})))
def test_any_text_is_a_list_of_names_or_malformed(body: str) -> None:
    try:
        objects = created_objects(body)
    except Malformed as reason:
        assert str(reason)
    else:
        assert all(objects) and all(all(names) for names in objects)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_every_key_comes_back_as_it_was(key: str) -> None:
    assert created_objects(event("landing", quote_plus(key))) == [("landing", key)]
