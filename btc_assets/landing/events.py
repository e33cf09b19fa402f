"""S3 events: messages that say that an object was created, and what to make of them.

They are a wake-up and no more. A message names an object; what the object is now is asked of the landing zone, so messages
that come twice, late or in the wrong order change nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

import orjson
import psycopg

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.feeds import Feed, folder_time, prefixes
from btc_assets.landing.arrivals import notice
from btc_assets.landing.objects import LandingZone

RECEIVE_SECONDS = 20.0  # a tick of Dagster's has 60
INVISIBLE_SECONDS = 120  # how long a message that is worked on is hidden from others
_REFUSED = re.compile("Denied|NonExistentQueue|QueueDoesNotExist|InvalidClientTokenId|SignatureDoesNotMatch")  # does not pass by itself


class Malformed(ValueError):
    """A message that is no S3 event; the text says why."""


@dataclass
class Received:
    """What reading the queue did; messages `left` stay in it, and go to its dead-letter queue in time."""

    messages: int = 0
    noticed: int = 0
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
    message = _json(body)
    if message.get("Type") == "Notification" and isinstance(message.get("Message"), str):
        message = _json(message["Message"])
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
    except (KeyError, TypeError, AttributeError) as missing:
        raise Malformed(f"no S3 event ({type(missing).__name__}: {missing})") from None
    if not all(isinstance(name, str) and name and "\0" not in name for names in objects for name in names):
        raise Malformed("no S3 event (bucket and key must be names)")
    return objects


def _json(text: str) -> dict[str, Any]:
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
    feeds: Sequence[Feed],
    queue: Any,
    url: str,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Received:
    """Notice what the messages of a queue tell of, and delete them once that is committed.

    Messages of other buckets, prefixes and kinds are deleted as well: the queue is ours. Those that nobody can read stay.

    Args:
        connection: to the store; in autocommit.
        zone: the landing zone, on S3.
        feeds: what lands there.
        queue: boto3's SQS client.
        url: of the queue.
        clock: to tell when to stop, in seconds.

    Raises:
        UserError: the queue, the landing zone or the server fails; what was not deleted comes again.
    """
    total, until = Received(), clock() + RECEIVE_SECONDS
    for messages in _messages(queue, url):
        total.messages += len(messages)
        keys: dict[tuple[str, str], None] = {}
        done = []
        for message in messages:
            try:
                keys |= dict.fromkeys(created_objects(message["Body"]))
                done.append(message)
            except Malformed as reason:
                total.left.append(f"{message['MessageId']}: {reason}")
        ours = [(prefix, uri) for bucket, key in keys if (uri := zone.uri(bucket, key)) and (prefix := _prefix(zone, feeds, uri))]
        total.foreign += len(keys) - len(ours)
        with ThreadPoolExecutor(zone.concurrency) as pool:
            objects = [obj for obj in pool.map(lambda one: zone.head(one[1], one[0]), ours) if obj is not None]
        for prefix in {obj.prefix for obj in objects}:
            own = [feed for feed in feeds if feed.prefix == prefix]
            total.noticed += notice(connection, own, [obj for obj in objects if obj.prefix == prefix])
        _delete(queue, url, done)
        if clock() > until:
            break
    return total


def _messages(queue: Any, url: str) -> Iterator[list[dict[str, Any]]]:
    """What is in the queue, a hundred at a time: looking up objects one by one would be slow."""
    while True:
        batch: list[dict[str, Any]] = []
        while len(batch) < 100:
            with _queue_errors(url):
                answer = queue.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=INVISIBLE_SECONDS)
            if not answer.get("Messages"):
                break
            batch += answer["Messages"]
        if not batch:
            return
        yield batch


def _delete(queue: Any, url: str, messages: Sequence[dict[str, Any]]) -> None:
    for start in range(0, len(messages), 10):
        entries = [{"Id": str(i), "ReceiptHandle": message["ReceiptHandle"]} for i, message in enumerate(messages[start : start + 10])]
        with _queue_errors(url):  # one that fails comes again, which does no harm
            queue.delete_message_batch(QueueUrl=url, Entries=entries)


def _prefix(zone: LandingZone, feeds: Sequence[Feed], uri: str) -> str | None:
    """The prefix of a feed that an object landed below; None where a listing would pass it over as well."""
    path = zone.path(uri)
    return next((prefix for prefix in prefixes(tuple(feeds)) if path.startswith(f"{prefix}/") and folder_time(prefix, path)), None)


class _queue_errors:
    """Turns what SQS refuses into one sentence."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(error, BotoCoreError | ClientError):
            kind = UserError if isinstance(error, ClientError) and _REFUSED.search(str(error)) else TransientError
            raise kind(
                f"The queue {self._url} cannot be read ({str(error).rstrip('.')}): check BTC_ASSETS_LANDING_EVENTS_QUEUE and the right "
                "to receive and delete its messages."
            ) from error
