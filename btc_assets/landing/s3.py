"""Access to S3: one AWS session, obstore's client for bulk work, and boto3's for what obstore cannot do."""

from __future__ import annotations

import os
import re
import threading
from datetime import timedelta
from typing import Any

from obstore.store import S3Store

from btc_assets.domain.errors import UserError

REQUEST_SECONDS = 30  # the time limit of a request; what takes longer is several requests


class S3Access:
    """One AWS session, and the two clients that are made from it.

    Args:
        bucket: its name.
        prefix: of all keys, without slashes at the ends; empty for the whole bucket.
        endpoint: of an S3-compatible server; else AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or AWS itself.
        region: of the bucket; else what the AWS configuration says.
        concurrency: connections that boto3 keeps open.
        retries: how often a failed request is repeated.

    Raises:
        UserError: the endpoint is no URL, the AWS configuration is wrong, or there are no credentials.
    """

    def __init__(self, bucket: str, prefix: str, endpoint: str | None, region: str | None, concurrency: int, retries: int) -> None:
        import boto3
        from botocore.exceptions import BotoCoreError

        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint and not re.match(r"https?://[^/]", endpoint):
            raise UserError(f"The S3 endpoint {endpoint!r} must begin with http:// or https://: correct BTC_ASSETS_S3_ENDPOINT.")
        self.bucket, self.prefix = bucket, prefix
        self._endpoint, self._concurrency, self._retries = endpoint and endpoint.rstrip("/"), concurrency, retries
        try:
            self._session = boto3.Session(region_name=region)
            credentials = self._session.get_credentials()
        except BotoCoreError as error:
            reason = str(error).rstrip(".")
            raise UserError(f"The AWS configuration is wrong ({reason}): correct the AWS_* variables or the profile.") from error
        if credentials is None:
            raise UserError(
                f"No AWS credentials were found for s3://{bucket}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role."
            )
        self._client: Any = None
        self._lock = threading.Lock()

    def key(self, path: str) -> str:
        """The key of the object at `path` below the prefix."""
        return f"{self.prefix}/{path}" if self.prefix else path

    def object_store(self) -> S3Store:
        """Obstore's client, for listing and bulk reads."""
        from obstore.auth.boto3 import Boto3CredentialProvider

        config: dict[str, object] = {"region": self._session.region_name or "us-east-1"}
        if self._endpoint:
            config |= {"endpoint": self._endpoint, "virtual_hosted_style_request": False}
        return S3Store(
            self.bucket,
            prefix=self.prefix or None,
            config=config,  # type: ignore[arg-type]  # obstore declares one class for each provider's keys
            client_options={
                "allow_http": bool(self._endpoint and self._endpoint.startswith("http://")),
                "timeout": timedelta(seconds=REQUEST_SECONDS),
            },
            retry_config={"max_retries": self._retries, "retry_timeout": timedelta(seconds=2 * REQUEST_SECONDS)},
            credential_provider=Boto3CredentialProvider(self._session),
        )

    def client(self) -> Any:  # boto3 makes its types at run time
        """boto3's client. Creating it takes as long as a hundred reads, so all threads share one."""
        from botocore.config import Config

        with self._lock:  # a session must not create two clients at the same time
            if self._client is None:
                self._client = self._session.client(
                    "s3",
                    endpoint_url=self._endpoint,
                    config=Config(
                        retries={"total_max_attempts": self._retries + 1, "mode": "standard"},
                        read_timeout=REQUEST_SECONDS,
                        max_pool_connections=self._concurrency,
                    ),
                )
            return self._client
