"""Nothing was listed: what lies where objects were looked for, so that a person sees why."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from btc_assets.domain.feeds import Feeds
from btc_assets.domain.printable import printable

if TYPE_CHECKING:
    from btc_assets.landing.zone import LandingZone


def explain_absence(zone: LandingZone, feeds: Feeds) -> Iterator[str]:
    """A sentence for each prefix that says what lies below it, with a few LIST calls, those of several prefixes at once."""
    with ThreadPoolExecutor(zone.concurrency) as pool:
        yield from pool.map(partial(_explain, zone), feeds.prefixes)


def _explain(zone: LandingZone, prefix: str) -> str:
    place = f"{zone.url}/{prefix}"
    if newest := zone.newest_minute(prefix):
        return (
            f"The newest object in {place} lies in the folder of {newest:%Y-%m-%d %H:%M}: look after the collector if it should be later."
        )
    if names := zone.names(prefix):
        return (
            f"No object in {place} lies in a minute folder (YYYY/MM/DD/HH/MM/); what lies there begins with {_list(names)}: move the "
            "objects to where their trades belong, or correct BTC_ASSETS_LANDING_FEEDS."
        )
    return f"Nothing lies in {place}{_above(zone, prefix)}: look after the collector, or correct BTC_ASSETS_LANDING_FEEDS."


def is_misplaced(zone: LandingZone, prefix: str) -> bool:
    """Whether something lies below a prefix, and nothing in a minute folder."""
    return zone.newest_minute(prefix) is None and bool(zone.names(prefix))


def _above(zone: LandingZone, prefix: str) -> str:
    """What the nearest folder above a prefix holds, if it holds anything."""
    folder = prefix
    while folder:
        folder = folder.rpartition("/")[0]
        if names := zone.names(folder):
            return f"; {zone.url}{f'/{folder}' if folder else ''} holds {_list(names)}"
    return ""


def _list(names: list[str]) -> str:
    return ", ".join(map(printable, names))
