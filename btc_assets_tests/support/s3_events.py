"""A real server for S3 events: moto's, whose S3 sends a message to its SQS for each object that is put."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from btc_assets.landing.zone import LandingZone
from btc_assets_tests.support.s3 import Bucket, S3Server
from btc_assets_tests.support.stores import FEED
from btc_assets_tests.support.waiting import PATIENCE_SECONDS, free_port

RECEIVES = 3  # after so many, a message that is not deleted goes to the dead-letter queue


@dataclass
class EventsUnderTest:
    """A bucket of a test's own that sends its events to a queue of the test's own, which has a dead-letter queue."""

    bucket: Bucket
    s3: Any
    client: Any
    url: str
    dead_url: str
    _handles: set[str] = field(default_factory=set)

    def zone(self) -> LandingZone:
        return self.bucket.zone()

    def key(self, path: str) -> str:
        return f"{self.bucket.prefix}/{FEED.prefix}/{path}"

    def put(self, path: str, data: bytes = b"data") -> str:
        """Land one object below the feed's prefix, which makes S3 send an event to the queue; returns its URI."""
        return self.put_key(self.key(path), data)

    def put_key(self, key: str, data: bytes = b"data") -> str:
        self.s3.put_object(Bucket=self.bucket.server.bucket, Key=key, Body=data)
        return f"s3://{self.bucket.server.bucket}/{key}"

    def delete(self, path: str) -> None:
        self.s3.delete_object(Bucket=self.bucket.server.bucket, Key=self.key(path))

    def send(self, *bodies: str) -> None:
        for start in range(0, len(bodies), 10):
            entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies[start : start + 10])]
            self.client.send_message_batch(QueueUrl=self.url, Entries=entries)

    def take(self) -> list[str]:
        """Take all messages out of the queue; returns their bodies."""
        bodies = []
        while messages := self.client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                bodies.append(message["Body"])
                self.client.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return bodies

    def left(self) -> int:
        """Number of messages in the queue, with those that are hidden because they were received and not deleted."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        counts = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(counts[name]) for name in names)

    def dead(self) -> list[str]:
        """The bodies in the dead-letter queue."""
        messages = self.client.receive_message(QueueUrl=self.dead_url, MaxNumberOfMessages=10, VisibilityTimeout=0).get("Messages", [])
        return [message["Body"] for message in messages]

    def show_again(self) -> None:
        """Make received messages that were not deleted visible again, as SQS does after their visibility timeout."""
        for handle in self._handles:
            try:
                self.client.change_message_visibility(QueueUrl=self.url, ReceiptHandle=handle, VisibilityTimeout=0)
            except (self.client.exceptions.MessageNotInflight, self.client.exceptions.ReceiptHandleIsInvalid):
                continue  # deleted
        self._handles.clear()

    def _remember(self, parsed: dict[str, Any], **_: Any) -> None:
        self._handles |= {message["ReceiptHandle"] for message in parsed.get("Messages", [])}


@pytest.fixture(scope="session")
def events_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's endpoint, for as long as the tests run."""
    with running_moto(tmp_path_factory.mktemp("s3_events")) as endpoint:
        yield endpoint


@contextmanager
def running_moto(directory: Path) -> Iterator[str]:
    """Endpoint of a new server, which logs to a directory."""
    port = free_port()
    log = directory / "moto.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)], stdout=output, stderr=output
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def exact_s3(events_server: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of a test's own whose keys are kept as they are, and that knows archives; the AWS variables of the process are the server's."""
    server = S3Server(events_server, f"landing-{uuid.uuid4().hex}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(variable, raising=False)
    server.client().create_bucket(Bucket=server.bucket)
    return Bucket(server, "feeds")


@pytest.fixture
def events(events_server: str, monkeypatch: pytest.MonkeyPatch) -> EventsUnderTest:
    """A bucket with its queue; the AWS variables of the process are the server's."""
    name = f"landing-{uuid.uuid4().hex}"
    server = S3Server(events_server, name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", events_server)
    for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(variable, raising=False)
    sqs = boto3.client("sqs")
    dead_url = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    redrive = {"deadLetterTargetArn": _arn(sqs, dead_url), "maxReceiveCount": RECEIVES}
    url = sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": json.dumps(redrive)})["QueueUrl"]
    s3 = server.client()
    s3.create_bucket(Bucket=name)
    s3.put_bucket_notification_configuration(
        Bucket=name,
        NotificationConfiguration={
            "QueueConfigurations": [{"QueueArn": _arn(sqs, url), "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}]
        },
    )
    made = EventsUnderTest(Bucket(server, "feeds"), s3, sqs, url, dead_url)
    sqs.meta.events.register("after-call.sqs.ReceiveMessage", made._remember)
    assert "s3:TestEvent" in made.take()[0]
    return made


def _arn(sqs: Any, url: str) -> str:
    return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def _wait(process: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{endpoint}/moto-api/data.json", timeout=PATIENCE_SECONDS).close()
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the server of S3 events does not start ({error}): {log.read_text()[-2000:]}") from error
            time.sleep(0.1)
