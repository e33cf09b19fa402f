"""Feeds: which prefix of the landing zone holds which symbol.

An exchange spells the symbol of its spot and its futures market alike, `BTCUSDT`, but numbers their trades separately. The store
therefore keeps them apart by a label of its own for each prefix and symbol.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, overload

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, Window

# The folders below the prefix are the collector's wall clock when it opened the object, to the minute.
_FOLDER = re.compile(r"^(\d{4})/(\d{2})/(\d{2})(?:/(\d{2})(?:/(\d{2}))?)?/[^/]+$")


# Markets of an exchange, which differ in what its ids and quantities mean.
SPOT, LINEAR, INVERSE = "spot", "um", "cm"
_OPTIONS = {"market": (SPOT, LINEAR, INVERSE), "ids": ("contiguous", "gaps")}

# How the exchange spells inverse contracts, such as BTCUSD_PERP, and where it keeps its dumps of futures.
_INVERSE_SYMBOL = re.compile(r"[A-Z0-9]+USD_(PERP|[0-9]{6})")
_FUTURES_PREFIX = re.compile(r"(?:^|/)futures/(um|cm)(?:/|$)")


@dataclass(frozen=True, order=True)
class Feed:
    """One symbol of one prefix.

    Attributes:
        prefix: where its objects land, without slashes at the ends, such as `Binance/BTCUSDT`.
        symbol: how the exchange spells it inside the objects.
        label: how the store spells it, in `btc_ticks.symbol` and `raw_blobs_5m.symbol`.
        market: `spot`, `um` (futures with a margin in the quote currency) or `cm` (inverse contracts), if it is declared.
        ids: `contiguous`, or `gaps` if the exchange itself skips ids, if it is declared.
    """

    prefix: str
    symbol: str
    label: str
    market: str = ""
    ids: str = ""

    @property
    def is_inverse(self) -> bool:
        """Whether its quantities are contracts of an amount of the quote currency, as declared, or by the name of its symbol or prefix."""
        return self._known_market == INVERSE

    @property
    def has_contiguous_ids(self) -> bool:
        """Whether its trade ids increase by one, as declared; by default all do but those of futures."""
        return self.ids == "contiguous" if self.ids else self._known_market not in (LINEAR, INVERSE)

    @property
    def _known_market(self) -> str:
        if self.market:
            return self.market
        if _INVERSE_SYMBOL.fullmatch(self.symbol):
            return INVERSE
        kept = _FUTURES_PREFIX.search(self.prefix)
        return kept[1] if kept else ""

    def __str__(self) -> str:
        options = "".join(f";{name}={getattr(self, name)}" for name in _OPTIONS if getattr(self, name))
        return f"{self.prefix}={self.symbol}:{self.label}{options}"


class Feeds(Sequence[Feed]):
    """The feeds of a store, to be looked up by prefix, label or path. Each label belongs to one feed.

    Raises:
        ValueError: there is no feed, two feeds share a label or a prefix and symbol, or one prefix lies inside another.
    """

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds = tuple(feeds)
        self.prefixes = tuple(dict.fromkeys(feed.prefix for feed in self._feeds))
        self._known_prefixes, self._of_prefix = frozenset(self.prefixes), dict[str, Feeds]()
        self.labels = tuple(feed.label for feed in self._feeds)
        if not self._feeds:
            raise ValueError("it must name at least one feed, such as Binance/BTCUSDT=BTCUSDT")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(
                "two feeds have the same label, which would mix two id sequences: give each its own, as in prefix=SYMBOL:LABEL"
            )
        if len({(feed.prefix, feed.symbol) for feed in self._feeds}) < len(self._feeds):
            raise ValueError("one prefix and symbol has two labels: keep one of them")
        if any(self._prefix_of(prefix) for prefix in self.prefixes):
            raise ValueError("one prefix lies inside another, so its objects would be read twice: keep them apart")

    @classmethod
    def parse(cls, text: str) -> Feeds:
        """Read `prefix`, `prefix=SYMBOL` or `prefix=SYMBOL:LABEL`, each with options such as `;market=um`, separated by commas.

        Raises:
            ValueError: an entry has another form, or the feeds contradict each other.
        """
        return cls(_parse_feed(entry) for part in text.split(",") if (entry := part.strip()))

    def by_prefix(self, prefix: str) -> Feeds:
        """The feeds that land under `prefix`, one of `prefixes`."""
        if prefix not in self._of_prefix:  # asked for each object, of which there are many
            self._of_prefix[prefix] = self if self.prefixes == (prefix,) else Feeds(feed for feed in self._feeds if feed.prefix == prefix)
        return self._of_prefix[prefix]

    def by_label(self, label: str | None) -> Feed:
        """The feed with that label; without a label, the only feed.

        Raises:
            UserError: no feed has that label, or there are several feeds and no label.
        """
        if label is None and len(self._feeds) == 1:
            return self._feeds[0]
        for feed in self._feeds:
            if feed.label == label:
                return feed
        raise UserError(f"Name one of the feeds in BTC_ASSETS_LANDING_FEEDS ({', '.join(self.labels)}) with --symbol.")

    def by_path(self, path: str) -> Feeds | None:
        """The feeds whose prefix holds the object at `path`, given below the landing zone's URL; None outside all of them."""
        prefix = self._prefix_of(path)
        return None if prefix is None else self.by_prefix(prefix)

    def _prefix_of(self, path: str) -> str | None:
        """The prefix that is a folder above `path`; looked up, because there may be many feeds."""
        return next((path[: slash.start()] for slash in re.finditer("/", path) if path[: slash.start()] in self._known_prefixes), None)

    @property
    def labels_with_gaps(self) -> frozenset[str]:
        """The labels of the feeds in which the exchange itself skips trade ids."""
        return frozenset(feed.label for feed in self._feeds if not feed.has_contiguous_ids)

    def groups(self) -> Iterator[tuple[str, Feeds]]:
        """Each prefix with its feeds, in order."""
        return ((prefix, self.by_prefix(prefix)) for prefix in self.prefixes)

    def __iter__(self) -> Iterator[Feed]:
        return iter(self._feeds)

    def __len__(self) -> int:
        return len(self._feeds)

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Feed, ...]: ...
    def __getitem__(self, index: int | slice) -> Feed | tuple[Feed, ...]:
        return self._feeds[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Feeds) and self._feeds == other._feeds

    def __hash__(self) -> int:
        return hash(self._feeds)

    def __repr__(self) -> str:
        return f"Feeds({self})"

    def __str__(self) -> str:
        return ",".join(map(str, self._feeds))


def _parse_feed(text: str) -> Feed:
    entry, *parts = (part.strip() for part in text.split(";"))
    options = dict(part.replace(" ", "").partition("=")[::2] for part in parts if part)
    for name, value in options.items():
        if value not in _OPTIONS.get(name, ()):
            raise ValueError(f"{name}={value} in {text!r} is no option of a feed: use ;market=spot, um or cm, or ;ids=contiguous or gaps")
    # The last one, because the folders of some collectors are called `symbol=BTCUSDT`.
    prefix, _, names = entry.rpartition("=") if "=" in entry else (entry, "", "")
    prefix = prefix.strip("/ ")
    symbol, _, label = names.partition(":")
    symbol = symbol.strip() or prefix.rsplit("/", 1)[-1]
    label = label.strip() or symbol
    if (
        not re.fullmatch(r"[\w.\-=]+(/[\w.\-=]+)*", prefix)
        or not re.fullmatch(r"[\w.\-/]+", symbol)
        or not re.fullmatch(r"[\w.\-]+", label)
    ):
        raise ValueError(f"{entry!r} must look like Binance/BTCUSDT=BTCUSDT:LABEL")
    return Feed(prefix, symbol, label, **options)


class FolderSpan(NamedTuple):
    """What an object's folders say about its time: a minute, an hour or a day, that of the collector's clock (UTC)."""

    start: datetime
    length: timedelta

    def overlaps(self, window: Window) -> bool:
        """Whether any part of it lies in `window`."""
        return self.start < window.end and window.start - self.start < self.length


def folder_span(prefix: str, path: str) -> FolderSpan | None:
    """The time in an object's folders; None if they hold no time."""
    match = _FOLDER.match(path.removeprefix(f"{prefix}/"))
    if match is None:
        return None
    year, month, day, hour, minute = (int(part or 0) for part in match.groups())
    length = timedelta(minutes=1) if match[5] else timedelta(hours=1) if match[4] else DAY
    try:
        return FolderSpan(datetime(year, month, day, hour, minute, tzinfo=UTC), length)
    except ValueError:
        return None


def folder_time(prefix: str, path: str) -> datetime | None:
    """The start of the time in an object's folders; None if they hold no time."""
    span = folder_span(prefix, path)
    return span.start if span else None


def folder_path(prefix: str, opened: datetime) -> str:
    """The folder of an object that the collector opened at `opened` (UTC)."""
    return f"{prefix}/{opened:%Y/%m/%d/%H/%M}"
