"""Whether the landing zone of the settings is the one that the store was filled from, before anything of it is registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feeds
from btc_assets.landing.states import Status
from btc_assets.store.errors import server_errors

if TYPE_CHECKING:
    from btc_assets.landing.zone import LandingZone

# One statement, and so one moment: other processes register the first objects of the landing zone meanwhile.
# Only what lies below a prefix as the feeds name it: what else is registered tells nothing about a landing zone.
_ELSEWHERE_ALONE = """
SELECT uri FROM landing.raw_blobs_5m
WHERE NOT EXISTS (SELECT 1 FROM landing.raw_blobs_5m WHERE uri >= %s AND uri < %s)
    AND asset = ANY(%s) AND status = ANY(%s) AND EXISTS (SELECT FROM unnest(%s::text[]) AS folder WHERE strpos(uri, folder) > 0)
LIMIT 1
"""
_PRESENT = [Status.NOTICED, Status.REGISTERED, Status.REJECTED]


def require_known_zone(connection: psycopg.Connection, zone: LandingZone, feeds: Feeds) -> None:
    """Check that the registry knows the landing zone, or nothing of these feeds at all.

    Objects of two landing zones in one slice could be loaded from neither, and what is not listed would not be missed.

    Raises:
        UserError: all objects of the feeds are registered in another landing zone.
    """
    folders = [f"/{prefix}/" for prefix in feeds.prefixes]
    with server_errors(), connection.transaction():
        found = connection.execute(_ELSEWHERE_ALONE, (*zone.uris(), list(feeds.labels), _PRESENT, folders)).fetchone()
    if found:
        raise UserError(
            f"This store was filled from {_zone_of(found[0], feeds)}, and BTC_ASSETS_LANDING_URL names {zone.url}, of which it knows "
            "nothing: correct the setting; if the objects moved, tell the store (btc-assets ops move-landing); if both are meant, load once "
            "with btc-assets load --new-landing."
        )


def _zone_of(uri: str, feeds: Feeds) -> str:
    """The URL of the landing zone that an object lies in, as far as the prefixes tell."""
    starts = [uri.find(f"/{prefix}/") for prefix in feeds.prefixes]
    return uri[: max(starts)] if max(starts) > 0 else uri.rpartition("/")[0]
