"""Dagster resources: the store and the landing zone, as the settings of the process name them."""

from typing import Any

import dagster as dg
import psycopg

from btc_assets.domain.settings import settings
from btc_assets.landing.spool import Spool
from btc_assets.landing.zone import LandingZone
from btc_assets.store.database import connect

_spool = Spool()


class Store(dg.ConfigurableResource[None]):
    """The PostgreSQL that the rooms live in. Its address comes from the settings, so no secret is in Dagster's config."""

    def connect(self, *, owner: bool = False) -> psycopg.Connection:
        """A new connection, outside a transaction; as the owner of the tables for what only that one may do, such as refreshing candles."""
        return connect(owner=owner)


class Landing(dg.ConfigurableResource[None]):
    """The landing zone."""

    @property
    def spool(self) -> Spool:
        """What the registry of this process decoded, for the loader."""
        return _spool

    def zone(self) -> LandingZone:
        """Open it.

        Raises:
            UserError: it does not exist, or there are no credentials.
        """
        return self._open(settings().landing)

    def models(self) -> LandingZone:
        """Where encoders lie, below `models/`: in the landing zone, or where BTC_ASSETS_MODELS_URL says.

        Raises:
            UserError: as `zone`.
        """
        return self._open(settings().models_url or settings().landing)

    def _open(self, url: str) -> LandingZone:
        config = settings()
        if config.landing_url is None:
            (config.home / "landing").mkdir(parents=True, exist_ok=True)  # ours to make; a directory that was named is not
        return LandingZone(
            url,
            endpoint=config.s3_endpoint,
            region=config.s3_region,
            etag=config.landing_etag,
            concurrency=config.fetch_concurrency,
        )


class EventsQueue(dg.ConfigurableResource[None]):
    """The SQS queue that S3 sends its events to; credentials and endpoint are those of the AWS configuration."""

    def client(self) -> Any:
        """boto3's SQS client."""
        import boto3
        from botocore.config import Config

        session = boto3.Session()
        return session.client(
            "sqs",
            region_name=settings().s3_region or session.region_name or "us-east-1",
            # A tick of Dagster's has 60 seconds, and the next one follows soon.
            config=Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2, "mode": "standard"}),
        )
