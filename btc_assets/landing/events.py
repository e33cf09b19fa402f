"""S3 events: a queue of messages that name created objects.

A message is only a hint. The landing zone says what the object is now, so messages that arrive twice, late or out of order
change nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

import orjson
import psycopg

from btc_assets.domain.feeds import Feeds, folder_time
from btc_assets.landing.known_zone import require_known_zone
from btc_assets.landing.objects import LandedObject
from btc_assets.landing.registry import notice
from btc_assets.landing.strays import Stray, record_strays, unreadable_name
from btc_assets.landing.zone import LandingZone
from btc_assets.landing.zone_errors import ErrorTranslator

RECEIVE_SECONDS = 20.0  # Dagster gives the tick of a sensor 60
VISIBILITY_SECONDS = 120  # how long a message that is being processed is hidden from other readers
_BATCH = 100  # messages; looking objects up one by one would be slow

_ERRORS = ErrorTranslator(
    advice="check BTC_ASSETS_LANDING_EVENTS_QUEUE and the permission to receive and delete its messages.", outcome="cannot be read"
)


class Malformed(ValueError):
    """The message is no S3 event; the text says why."""


@dataclass
class Received:
    """What reading the queue did.

    Attributes:
        messages: read.
        noticed: objects that the registry did not know.
        strays: objects below a feed's prefix whose name cannot be read.
        foreign: objects of other buckets and prefixes.
        left: messages that cannot be parsed, with the reason; they stay, until the queue moves them to its dead-letter queue.
    """

    messages: int = 0
    noticed: int = 0
    strays: int = 0
    foreign: int = 0
    left: list[str] = field(default_factory=list)


def created_objects(body: str) -> list[tuple[str, str]]:
    """Bucket and key of each object that a message says was created.

    Args:
        body: an S3 notification, by itself or in an SNS envelope, or an EventBridge event.

    Returns:
        Nothing for S3's test message and for other events, such as deletions.

    Raises:
        Malformed: it is something else.
    """
    message = _parse_json(body)
    if message.get("Type") == "Notification" and isinstance(message.get("Message"), str):
        message = _parse_json(message["Message"])
    if message.get("Event") == "s3:TestEvent":
        return []
    try:
        if "detail" in message:
            created = message["detail-type"] == "Object Created"
            objects = [(message["detail"]["bucket"]["name"], message["detail"]["object"]["key"])] if created else []
        else:
            objects = [
                (record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"]))
                for record in message["Records"]
                if record["eventName"].removeprefix("s3:").startswith("ObjectCreated:")
            ]
    except (KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"no S3 event ({type(error).__name__}: {error})") from None
    if not all(isinstance(name, str) and name and "\0" not in name for names in objects for name in names):
        raise Malformed("no S3 event (bucket and key must be names)")
    return objects


def _parse_json(text: str) -> dict[str, Any]:
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"no JSON ({error})") from None
    if not isinstance(message, dict):
        raise Malformed("no JSON object")
    return message


def receive(
    connection: psycopg.Connection,
    zone: LandingZone,
    feeds: Feeds,
    queue: Any,
    url: str,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Received:
    """Notice the objects that the messages of a queue name, and delete the messages once that is committed.

    Messages about other buckets, prefixes and kinds of events are deleted as well, because the queue is ours. Messages that
    cannot be parsed stay in the queue.

    Args:
        connection: to the store; in autocommit.
        zone: the landing zone, on S3.
        feeds: what lands there.
        queue: boto3's SQS client.
        url: of the queue.
        clock: seconds; receiving stops after `RECEIVE_SECONDS`.

    Raises:
        UserError: the queue, the landing zone or the server fails; messages that were not deleted are delivered again.
    """
    require_known_zone(connection, zone, feeds)
    total, deadline = Received(), clock() + RECEIVE_SECONDS
    for messages in _batches(queue, url):
        total.messages += len(messages)
        names: dict[tuple[str, str], None] = {}
        parsed = []
        for message in messages:
            try:
                names |= dict.fromkeys(created_objects(message["Body"]))
                parsed.append(message)
            except Malformed as reason:
                total.left.append(f"{message['MessageId']}: {reason}")
        strays = _record_strays(connection, zone, feeds, names)
        ours = [(uri, prefix) for bucket, key in names if (uri := zone.uri(bucket, key)) and (prefix := _prefix(zone, feeds, uri))]
        total.strays += len(strays)
        total.foreign += len(names) - len(ours) - len(strays)
        objects = _existing(zone, ours)
        total.noticed += notice(connection, feeds, objects)
        _delete(queue, url, parsed)
        if clock() > deadline:
            break
    return total


def _batches(queue: Any, url: str) -> Iterator[list[dict[str, Any]]]:
    """The messages in the queue until it is empty, up to a hundred at a time."""
    while True:
        batch: list[dict[str, Any]] = []
        while len(batch) < _BATCH:
            with _ERRORS.during(f"The queue {url}"):
                answer = queue.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=VISIBILITY_SECONDS)
            if not answer.get("Messages"):
                break
            batch += answer["Messages"]
        if not batch:
            return
        yield batch


def _delete(queue: Any, url: str, messages: Sequence[dict[str, Any]]) -> None:
    for start in range(0, len(messages), 10):
        entries = [{"Id": str(i), "ReceiptHandle": message["ReceiptHandle"]} for i, message in enumerate(messages[start : start + 10])]
        with _ERRORS.during(f"The queue {url}"):  # a message that is not deleted is delivered again, which does no harm
            queue.delete_message_batch(QueueUrl=url, Entries=entries)


def _existing(zone: LandingZone, names: Sequence[tuple[str, str]]) -> list[LandedObject]:
    """The objects of these URIs and prefixes that still exist, as they are now."""
    with ThreadPoolExecutor(zone.concurrency) as pool:
        return [obj for obj in pool.map(lambda name: zone.head(*name), names) if obj is not None]


def _record_strays(connection: psycopg.Connection, zone: LandingZone, feeds: Feeds, names: Iterable[tuple[str, str]]) -> set[Stray]:
    """Record the objects of a feed's prefix whose name cannot be read."""
    found: set[Stray] = set()
    for uri in filter(None, (zone.uri(bucket, key) for bucket, key in names)):
        path = zone.path(uri)
        own, reason = feeds.by_path(path), unreadable_name(path)
        if own and reason and not path.endswith("/"):  # a slash at the end marks a folder
            stray = Stray.at(uri, reason)
            record_strays(connection, [], {own[0].label: [stray]})
            found.add(stray)
    return found


def _prefix(zone: LandingZone, feeds: Feeds, uri: str) -> str | None:
    """The prefix of the feed that an object landed under; None if a listing would skip the object as well."""
    path = zone.path(uri)
    own = None if unreadable_name(path) else feeds.by_path(path)
    return own.prefixes[0] if own and folder_time(own.prefixes[0], path) else None
