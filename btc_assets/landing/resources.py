"""What a process uses of the landing room, as its settings say: the landing zone, the spool, and the queue of S3 events."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import Window
from btc_assets.landing.zone import LandingZone

if TYPE_CHECKING:
    from btc_assets.landing.spool import Spool


class Landing:
    """The landing zone of a process, and what the assets of a run hand on to each other, all of which run in one process.

    Attributes:
        loaded_outside: for the slices of a run, other slices that its loader had to replace as well.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.loaded_outside: dict[Window, list[Window]] = {}

    @cached_property
    def spool(self) -> Spool:
        """Between the registry and the loader."""
        from btc_assets.landing.spool import Spool  # Arrow takes a quarter of a second, and `status` needs none

        return Spool()

    def zone(self) -> LandingZone:
        """Open the landing zone.

        Raises:
            UserError: it does not exist, or there are no credentials.
        """
        return self._open(self._settings.landing)

    def models(self) -> LandingZone:
        """Open the place in which encoders are stored, below `models/`: BTC_ASSETS_MODELS_URL, or the landing zone.

        Raises:
            UserError: as `zone`.
        """
        return self._open(self._settings.models_url or self._settings.landing)

    def at(self, url: str) -> LandingZone:
        """Open another landing zone with the same credentials.

        Raises:
            UserError: as `zone`.
        """
        return self._open(url)

    def _open(self, url: str) -> LandingZone:
        settings = self._settings
        if settings.landing_url is None:
            # We create the default directory. A directory that the user names has to exist.
            try:
                (settings.home / "landing").mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"{settings.home} cannot be written ({error.strerror}): set BTC_ASSETS_HOME to a writable directory, or "
                    "BTC_ASSETS_LANDING_URL to where objects land."
                ) from None
        return LandingZone(
            url,
            endpoint=settings.s3_endpoint,
            region=settings.s3_region,
            etag=settings.landing_etag,
            concurrency=settings.fetch_concurrency,
        )


class EventsQueue:
    """The SQS queue of S3 events, with the credentials and the endpoint of the AWS configuration."""

    def __init__(self, settings: Settings) -> None:
        self._region = settings.s3_region

    def client(self) -> Any:
        """boto3's SQS client."""
        import boto3
        from botocore.config import Config

        session = boto3.Session()
        return session.client(
            "sqs",
            region_name=self._region or session.region_name or "us-east-1",
            # A sensor tick has 60 seconds, and the next one follows soon.
            config=Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2, "mode": "standard"}),
        )
