"""Feeds give each prefix and symbol a label, and an object's folders are the collector's clock."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feed, Feeds, folder_path, folder_time

NAME = st.text("aZ09_-.", min_size=1, max_size=6)
PREFIX = st.lists(NAME, min_size=1, max_size=3).map("/".join)


@pytest.mark.parametrize(
    ("text", "feed"),
    [
        ("Binance/BTCUSDT", Feed("Binance/BTCUSDT", "BTCUSDT", "BTCUSDT")),
        ("/Binance/BTCUSDT/", Feed("Binance/BTCUSDT", "BTCUSDT", "BTCUSDT")),
        ("spot=BTCUSDT", Feed("spot", "BTCUSDT", "BTCUSDT")),
        (" um/btc = BTCUSDT : BTCUSDT-PERP ", Feed("um/btc", "BTCUSDT", "BTCUSDT-PERP")),
        ("um/BTCUSDT=:BTCUSDT-PERP", Feed("um/BTCUSDT", "BTCUSDT", "BTCUSDT-PERP")),
        ("um/BTCUSDT;ids=gaps", Feed("um/BTCUSDT", "BTCUSDT", "BTCUSDT", ids="gaps")),
        ("um=BTCUSDT:P ; market = um ; ids=contiguous;", Feed("um", "BTCUSDT", "P", "um", "contiguous")),
    ],
)
def test_symbol_and_label_of_a_feed_may_be_left_out(text: str, feed: Feed) -> None:
    assert Feeds.parse(text) == Feeds([feed])


def test_labels_keep_two_markets_of_one_symbol_apart() -> None:
    spot, perpetual = Feeds.parse("spot=BTCUSDT, um=BTCUSDT:BTCUSDT-PERP,")
    assert (spot.symbol, perpetual.symbol) == ("BTCUSDT", "BTCUSDT")
    assert (spot.label, perpetual.label) == ("BTCUSDT", "BTCUSDT-PERP")


def test_several_symbols_may_share_a_prefix() -> None:
    feeds = Feeds.parse("all=BTCUSDT,all=ETHUSDT,other=XRPUSDT")
    assert feeds.prefixes == ("all", "other")


@pytest.mark.parametrize(
    ("text", "contiguous", "inverse"),
    [
        ("Binance/BTCUSDT", True, False),
        ("a=BTCUSDT;market=spot", True, False),
        ("a=BTCUSDT;market=um", False, False),
        ("a=BTCUSDT;market=um;ids=contiguous", True, False),
        ("a=BTCUSDT;ids=gaps", False, False),
        ("a=XBTUSD;market=cm", False, True),
        ("Binance/BTCUSD_PERP", False, True),
        ("Binance/BTCUSD_261225", False, True),
        ("Binance/BTCUSD_PERP;market=um", False, False),
        ("data/futures/um/daily/trades/BTCUSDT", False, False),
        ("futures/cm/XBT", False, True),
        ("myfutures/um2/BTCUSDT", True, False),
    ],
)
def test_a_feed_knows_whether_its_ids_are_contiguous_and_its_quantities_contracts(text: str, contiguous: bool, inverse: bool) -> None:
    (feed,) = feeds = Feeds.parse(text)
    assert (feed.has_contiguous_ids, feed.is_inverse) == (contiguous, inverse)
    assert feeds.labels_with_gaps == (frozenset() if contiguous else {feed.label})


@given(PREFIX, NAME, NAME, st.sampled_from(["", "spot", "um", "cm"]), st.sampled_from(["", "contiguous", "gaps"]))
def test_a_feed_is_printed_as_it_is_parsed(prefix: str, symbol: str, label: str, market: str, ids: str) -> None:
    feed = Feed(prefix, symbol, label, market, ids)
    assert Feeds.parse(str(feed)) == Feeds([feed])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "it must name at least one feed, such as Binance/BTCUSDT=BTCUSDT"),
        (" , ", "it must name at least one feed, such as Binance/BTCUSDT=BTCUSDT"),
        ("=BTCUSDT", "'=BTCUSDT' must look like Binance/BTCUSDT=BTCUSDT:LABEL"),
        ("a//b", "'a//b' must look like Binance/BTCUSDT=BTCUSDT:LABEL"),
        ("a b", "'a b' must look like Binance/BTCUSDT=BTCUSDT:LABEL"),
        ("a=b:c:d", "'a=b:c:d' must look like Binance/BTCUSDT=BTCUSDT:LABEL"),
        ("a;ids=no", "ids=no in 'a;ids=no' is no option of a feed: use ;market=spot, um or cm, or ;ids=contiguous or gaps"),
        ("a;gaps", "gaps= in 'a;gaps' is no option of a feed: use ;market=spot, um or cm, or ;ids=contiguous or gaps"),
        (
            "spot=BTCUSDT,um=BTCUSDT",
            "two feeds have the same label, which would mix two id sequences: give each its own, as in prefix=SYMBOL:LABEL",
        ),
        ("spot=BTCUSDT:A,spot=BTCUSDT:B", "one prefix and symbol has two labels: keep one of them"),
        ("a=B,a/b=C", "one prefix lies inside another, so its objects would be read twice: keep them apart"),
    ],
)
def test_feeds_that_cannot_be_kept_apart_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        Feeds.parse(text)
    assert str(caught.value) == sentence


def test_a_prefix_that_merely_starts_like_another_does_not_lie_inside_it() -> None:
    assert len(Feeds.parse("Binance/BTC,Binance/BTCUSDT")) == 2


@pytest.mark.parametrize(
    ("path", "time"),
    [
        ("Binance/BTCUSDT/2024/01/10/12/05/batch-0f.parquet", datetime(2024, 1, 10, 12, 5, tzinfo=UTC)),
        ("Binance/BTCUSDT/2024/01/10/12/hour.csv.gz", datetime(2024, 1, 10, 12, tzinfo=UTC)),
        ("Binance/BTCUSDT/2024/01/10/day.zip", datetime(2024, 1, 10, tzinfo=UTC)),
        ("Binance/BTCUSDT/2024/13/10/12/05/batch-0f.parquet", None),
        ("Binance/BTCUSDT/2024/02/30/12/05/batch-0f.parquet", None),
        ("Binance/BTCUSDT/2024/01/10/12/60/batch-0f.parquet", None),
        ("Binance/BTCUSDT/2024/01/batch-0f.parquet", None),
        ("Binance/BTCUSDT/2024/01/10/12/05/", None),
        ("Binance/BTCUSDT/2024/01/10/12/05/deeper/batch-0f.parquet", None),
        ("Binance/BTCUSDT/readme.txt", None),
        ("Binance/BTCUSDT2024/01/10/12/05/batch-0f.parquet", None),
        ("Other/BTCUSDT/2024/01/10/12/05/batch-0f.parquet", None),
    ],
)
def test_the_folders_of_an_object_are_a_time_to_the_minute_hour_or_day(path: str, time: datetime | None) -> None:
    assert folder_time("Binance/BTCUSDT", path) == time


@given(PREFIX, st.datetimes(datetime(2009, 1, 3), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_folder_path_and_folder_time_are_inverse(prefix: str, opened: datetime) -> None:
    assert folder_time(prefix, f"{folder_path(prefix, opened)}/batch.parquet") == opened.replace(second=0, microsecond=0)


def test_a_feed_is_found_by_its_label() -> None:
    spot, perpetual = Feed("spot", "BTCUSDT", "BTCUSDT"), Feed("um", "BTCUSDT", "BTCUSDT_UM")
    both = Feeds([spot, perpetual])
    assert Feeds([spot]).by_label(None) == spot
    assert both.by_label("BTCUSDT_UM") == perpetual
    for label in (None, "ETHUSDT"):
        with pytest.raises(UserError) as refused:
            both.by_label(label)
        assert str(refused.value) == "Name one of the feeds in BTC_ASSETS_LANDING_FEEDS (BTCUSDT, BTCUSDT_UM) with --symbol."


def test_feeds_are_found_by_the_path_of_an_object() -> None:
    feeds = Feeds.parse("all=BTCUSDT,all=ETHUSDT,other=XRPUSDT")
    found = feeds.by_path("all/2024/01/10/batch.parquet")
    assert found is not None and found.labels == ("BTCUSDT", "ETHUSDT")
    assert feeds.by_path("allother/2024/01/10/batch.parquet") is None
    assert [(prefix, group.labels) for prefix, group in feeds.groups()] == [("all", ("BTCUSDT", "ETHUSDT")), ("other", ("XRPUSDT",))]
