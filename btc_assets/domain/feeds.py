"""Feeds: which prefix of the landing zone holds which symbol.

Spot and futures trades share the text `BTCUSDT` but number their trades separately, so the store keeps them apart by
a label of our own: one prefix and one exchange symbol make one label.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

# The folders below the prefix are the collector's wall clock, to the minute, when the object was opened.
_FOLDER = re.compile(r"^(\d{4})/(\d{2})/(\d{2})(?:/(\d{2})(?:/(\d{2}))?)?/[^/]+$")


@dataclass(frozen=True, order=True)
class Feed:
    """One symbol of one prefix.

    Attributes:
        prefix: where its objects land, without slashes at the ends, such as `Binance/BTCUSDT`.
        symbol: how the exchange spells it inside the objects.
        label: how the store spells it, in `btc_ticks.symbol` and `raw_blobs_5m.asset`.
    """

    prefix: str
    symbol: str
    label: str

    def __str__(self) -> str:
        return f"{self.prefix}={self.symbol}:{self.label}"


def parse_feeds(text: str) -> tuple[Feed, ...]:
    """Read `prefix`, `prefix=SYMBOL` or `prefix=SYMBOL:LABEL`, separated by commas.

    Raises:
        ValueError: an entry has no such form, or two entries claim one label.
    """
    feeds = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        prefix, _, names = entry.partition("=")
        prefix = prefix.strip("/ ")
        symbol, _, label = names.partition(":")
        symbol = symbol.strip() or prefix.rsplit("/", 1)[-1]
        label = label.strip() or symbol
        if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)*", prefix) or not re.fullmatch(r"[\w.\-]+", symbol + label):
            raise ValueError(f"{entry!r} must look like Binance/BTCUSDT=BTCUSDT:LABEL")
        feeds.append(Feed(prefix, symbol, label))
    if not feeds:
        raise ValueError("it must name at least one feed, such as Binance/BTCUSDT=BTCUSDT")
    if len({feed.label for feed in feeds}) < len(feeds):
        raise ValueError("two feeds have one label, which would mix two id sequences: give each its own, as in prefix=SYMBOL:LABEL")
    if len({(feed.prefix, feed.symbol) for feed in feeds}) < len(feeds):
        raise ValueError("one prefix and symbol has two labels: keep one of them")
    if any(a != b and b.startswith(f"{a}/") for a in prefixes(tuple(feeds)) for b in prefixes(tuple(feeds))):
        raise ValueError("one prefix lies inside another, so its objects would be read twice: keep them apart")
    return tuple(feeds)


def prefixes(feeds: tuple[Feed, ...]) -> tuple[str, ...]:
    """The distinct prefixes of `feeds`, in order."""
    return tuple(dict.fromkeys(feed.prefix for feed in feeds))


def folder_time(prefix: str, path: str) -> datetime | None:
    """The wall clock in an object's folders (UTC, to the minute, hour or day), or None where they hold no time."""
    match = _FOLDER.match(path.removeprefix(f"{prefix}/"))
    if match is None:
        return None
    year, month, day, hour, minute = (int(part or 0) for part in match.groups())
    try:
        return datetime(year, month, day, hour, minute, tzinfo=UTC)
    except ValueError:
        return None


def folder_path(prefix: str, opened: datetime) -> str:
    """The folder of an object that the collector opened at `opened` (UTC)."""
    return f"{prefix}/{opened:%Y/%m/%d/%H/%M}"
