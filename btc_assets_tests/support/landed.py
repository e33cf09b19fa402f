"""Objects in a landing zone: writing, listing and removing them by short paths, and faults between requests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import obstore
import pytest

from btc_assets.domain.slices import Window, parse_time
from btc_assets.landing import verified_read
from btc_assets.landing.listers import file_etag
from btc_assets.landing.objects import LandedObject
from btc_assets.landing.zone import LandingZone

PREFIX = "Binance/BTCUSDT"
DAY = datetime(2024, 1, 10, tzinfo=UTC)
S3_ADVICE = "check the bucket in BTC_ASSETS_LANDING_URL, BTC_ASSETS_S3_ENDPOINT, BTC_ASSETS_S3_REGION and the AWS credentials."


def window(start: str, end: str) -> Window:
    """A window of January 2024, from texts such as `10T12:05`."""
    return Window(parse_time(f"2024-01-{start}"), parse_time(f"2024-01-{end}"))


def put(zone: LandingZone, *paths: str) -> None:
    """Write an object of one byte at each path below the prefix."""
    for path in paths:
        zone.put(f"{PREFIX}/{path}", b"x")


def listed_paths(zone: LandingZone, window: Window) -> list[str]:
    """The listed objects' paths below the prefix."""
    return [zone.path(obj.uri).removeprefix(f"{PREFIX}/") for obj in zone.list_window(PREFIX, window)]


def land(
    zone: LandingZone, data: bytes = b"some bytes", path: str = "2024/01/10/00/00/batch.parquet", prefix: str = PREFIX
) -> LandedObject:
    """Write an object and return it as a listing shows it."""
    obstore.put(zone.store, f"{prefix}/{path}", data, use_multipart=False)
    (found,) = (obj for obj in zone.list_all(prefix) if obj.uri == f"{zone.url}/{prefix}/{path}")
    return found


def remove(zone: LandingZone, obj: LandedObject) -> None:
    """Delete an object."""
    obstore.delete(zone.store, zone.path(obj.uri))


def after_the_first_request(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Call `action` once, after the store answered the first request for an object and before its bytes are read."""
    pending = [action]

    def then_act(ask: Callable[..., Any]) -> Callable[..., Any]:
        def ask_then_act(*args: Any, **options: Any) -> Any:
            answer = ask(*args, **options)
            if pending:
                pending.pop()()
            return answer

        return ask_then_act

    monkeypatch.setattr(obstore, "get", then_act(obstore.get))
    monkeypatch.setattr(verified_read, "file_etag", then_act(file_etag))  # of a small file in a directory
