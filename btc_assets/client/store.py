"""The front door: `btc_assets.connect()` and the store that it returns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Self, Unpack

from btc_assets.client.asof import asof
from btc_assets.client.bars import BarsRelation, bars
from btc_assets.client.candles import candles
from btc_assets.client.catalog import Catalog
from btc_assets.client.coverage import coverage, gaps, slices
from btc_assets.client.datasets import Dataset, dataset
from btc_assets.client.embeddings import SearchOptions, embeddings, similar
from btc_assets.client.features import features, slice_bars
from btc_assets.client.ranges import Moment, RangeLike
from btc_assets.client.relation import Relation
from btc_assets.client.source import EXACT, Source, check_decimals
from btc_assets.client.symbols import symbols
from btc_assets.client.ticks import ticks
from btc_assets.client.versions import version
from btc_assets.domain.settings import Settings, load_settings
from btc_assets.market_data.clock_bars.bars import BarState
from btc_assets.market_data.clock_bars.sizes import Clock, Expectation, Side, Size
from btc_assets.signals.datasets.spans import Span
from btc_assets.store.database import Store, prepare_conninfo

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ClientStore", "Expectation", "connect"]


def connect(
    dsn: str | None = None, *, settings: Settings | None = None, decimals: str = EXACT, latency: timedelta | None = None
) -> ClientStore:
    """Open a store for reading.

    Args:
        dsn: connection string of its PostgreSQL; any role with the rights of a reader will do. If omitted, the settings name the store.
        settings: those of the environment and `.env` if omitted, as the command line reads them.
        decimals: `exact` for decimals, `float` for float64, wherever a method does not say otherwise.
        latency: from the end of a slice until its rows can have been read, for `available_at`; the settings' landing grace if omitted.

    Returns:
        The store. Nothing is connected yet, except that the embedded server starts with the first reading.

    Raises:
        UserError: a setting or the connection string is wrong.
    """
    settings = settings or load_settings()
    if dsn:
        prepare_conninfo(dsn, setting="The connection string")
    store = Store(dsn, read_only=True) if dsn else Store.of(settings, read_only=True)
    catalog = Catalog(store)
    grace = settings.landing_grace if latency is None else latency
    return ClientStore(Source(store, settings, catalog, grace, check_decimals(decimals)))


class ClientStore:
    """A store as a researcher reads it: each method returns a lazy `Relation`.

    Symbols are labels. A range is a day (`"2024-01-10"`), a month (`"2024-01"`), a pair of times whose end is exclusive, or a `Window`;
    times without a zone are UTC. `available_at` is when a row can have been known: `bucket_5m` and `bucket` are starts, and whoever joins
    by them looks ahead.

    Sessions are read-only, and each relation in progress has one of its own, so threads may share a store.

    Args:
        source: what is read, and how.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the use of the store; relations in progress go on."""

    def __repr__(self) -> str:
        return f"<btc_assets {self._source.store!r}, decimals={self._source.decimals}>"

    # ---- what is there

    def symbols(self) -> Relation:
        """The symbols of the store: `symbol`, `first_slice`, `end` (of the last slice), `slices`, `ticks` (as far as they were counted).

        Examples:
            >>> store.symbols().arrow()["symbol"].to_pylist()
            ['BTCUSDT', 'BTCUSDT.P']
        """
        return symbols(self._source)

    def coverage(self, range: RangeLike, symbol: str | Sequence[str] | None = None) -> Relation:
        """Which days can be trusted: a row for each day and symbol, up to the last slice that is over.

        `state` is the first of these that holds: `nothing` landed; `rejected` objects or rows; `pending`: landed, not loaded; `gaps` of
        trade ids (of slices, where the exchange itself skips ids, as `BTC_ASSETS_LANDING_FEEDS` says); `partial`: the symbol begins or ends
        within the day; `dropped`: it was complete, and only candles and features are left; `complete`. The counts beside it say how much.

        Args:
            range: as the class tells.
            symbol: label, or several; all if omitted.

        Examples:
            >>> store.coverage(("2024-01-10", "2024-01-12"), "BTCUSDT").arrow()["state"].to_pylist()
            ['complete', 'gaps']
        """
        return coverage(self._source, range, symbol)

    def gaps(self, range: RangeLike, symbol: str | Sequence[str] | None = None) -> Relation:
        """Trade ids that are missing: `first_missing`, `last_missing`, and the slice of the next trade.

        Nothing is told of symbols whose exchange itself skips ids, as `BTC_ASSETS_LANDING_FEEDS` says, nor of those that it does not name.

        Args:
            range: as the class tells; whole slices.
            symbol: label, or several; all if omitted.

        Examples:
            >>> store.gaps("2024-01-11").arrow().select(["symbol", "missing"]).to_pylist()
            [{'symbol': 'BTCUSDT', 'missing': 5}]
        """
        return gaps(self._source, range, symbol)

    def slices(self, range: RangeLike, symbol: str | Sequence[str] | None = None) -> Relation:
        """The slices that start in a range and of which something landed: their state and counts, as `landing.slices` explains them.

        Args:
            range: as the class tells.
            symbol: label, or several; all if omitted.
        """
        return slices(self._source, range, symbol)

    # ---- market data

    def ticks(
        self,
        symbol: str,
        range: RangeLike,
        columns: Sequence[str] | None = None,
        *,
        by: str = "event_time",
        decimals: str | None = None,
    ) -> Relation:
        """The ticks of a symbol, ordered by slice and trade id.

        Args:
            symbol: label.
            range: as the class tells; exact to the microsecond.
            columns: some of those of `market_data.btc_ticks`, and `available_at`; all if omitted.
            by: `event_time` (when the exchange reported a trade, which slices go by) or `trade_time` (when it was made, which candles go
                by); a range of the latter finds late reports as far as the store's candles tell.
            decimals: `exact` or `float`.

        Raises:
            UserError: the symbol, a column or the range is not there; the sentence tells what is.

        Examples:
            >>> store.ticks("BTCUSDT", ("2024-01-10T12:00", "2024-01-10T12:05"), ["price", "quantity"]).arrow().num_rows
            87
        """
        return ticks(self._source, symbol, range, columns, by=by, decimals=decimals)

    def candles(  # noqa: PLR0913  # what is read, each by its keyword
        self,
        symbol: str | Sequence[str],
        interval: str | timedelta,
        range: RangeLike,
        columns: Sequence[str] | None = None,
        *,
        fill: bool = False,
        wide: bool = False,
        tz: str = "UTC",
        decimals: str | None = None,
    ) -> Relation:
        """The candles that start in a range, by trade time, ordered by `bucket` and symbol; an interval without a trade has none.

        Args:
            symbol: label, or several.
            interval: a multiple of one that the store keeps, such as `3m`, `15m`, `4h` or `7d`, counted from 1970-01-01 UTC; or `day`,
                `week` (from Monday), `month`, `quarter`, `year` of a calendar.
            range: as the class tells. A candle does not depend on it: the last one is whole, also if it ends later.
            columns: some of those of the candles; all if omitted.
            fill: an interval without a trade has the close before it, also if that lies before the range, and no volume. None is made
                before the first trade of a symbol nor after its last slice. One that is not loaded looks the same: see `coverage`.
            wide: one row for each `bucket`, with columns such as `close_BTCUSDT`; null where a symbol has no candle.
            tz: time zone of a calendar interval, such as `America/New_York`.
            decimals: `exact` or `float`.

        Raises:
            UserError: the symbol or the range is not there, or the interval cannot be built; the sentence tells what can.

        Examples:
            >>> store.candles("BTCUSDT", "4h", "2024-01-10", ["bucket", "close", "trade_count"]).polars()["trade_count"].to_list()
            [...]
            >>> store.candles(["BTCUSDT", "BTCUSDT.P"], "1m", "2024-01-10", ["close"], fill=True, wide=True).columns
            ['bucket', 'close_BTCUSDT', 'close_BTCUSDT.P']
        """
        return candles(self._source, symbol, interval, range, columns, fill=fill, wide=wide, tz=tz, decimals=decimals)

    def asof(
        self,
        left: str,
        right: str,
        range: RangeLike,
        *,
        tolerance: timedelta = timedelta(hours=1),
        decimals: str | None = None,
    ) -> Relation:
        """The ticks of one symbol, each with the last tick of another one that was reported at the same time or before.

        Of several at the same event time, the one with the highest id; its columns are called `right_price` and so on, and are null if there
        is none. Ordered by slice and trade id, in bounded memory.

        Args:
            left: label of the symbol that has a row for each of its ticks.
            right: label of the other one.
            range: of the ticks of `left`, by event time, as the class tells.
            tolerance: how much older the tick of `right` may be.
            decimals: `exact` or `float`.

        Raises:
            UserError: a symbol or the range is not there; the sentence tells what is.

        Examples:
            >>> store.asof("BTCUSDT", "BTCUSDT.P", "2024-01-10").head(100)["right_price"].null_count < 100
            True
        """
        return asof(self._source, left, right, range, tolerance=tolerance, decimals=decimals)

    # ---- signals

    def features(self, symbol: str, range: RangeLike, columns: Sequence[str] | None = None) -> Relation:
        """The features of the slices that start in a range (docs/features.md).

        Args:
            symbol: label.
            range: as the class tells.
            columns: some of the features, and `bars`, which are left out if `columns` is omitted: 60 bars of 5 seconds with 16 channels,
                as an array of 60 arrays.

        Raises:
            UserError: the symbol, a column or the range is not there; or, while reading, another version computed the features.

        Examples:
            >>> store.features("BTCUSDT", "2024-01-10", ["realized_volatility"]).numpy()["realized_volatility"].shape
            (288,)
        """
        return features(self._source, symbol, range, columns)

    def slice_bars(self, symbol: str, range: RangeLike, columns: Sequence[str] | None = None) -> Relation:
        """The bars of 5 seconds by event time of the slices that start in a range, a row for each; the columns of `signals.slice_bars`.

        Args:
            symbol: label.
            range: as the class tells.
            columns: some of the columns; all if omitted.

        Raises:
            UserError: as `features`.

        Examples:
            >>> store.slice_bars("BTCUSDT", "2024-01-10", ["bar", "close"]).arrow().num_rows  # 288 slices of 60
            17280
        """
        return slice_bars(self._source, symbol, range, columns)

    def embeddings(self, range: RangeLike | None = None, *, symbol: str | None = None, model: str | None = None) -> Relation:
        """The vectors of slices by one model, as arrays; null where a slice has too few ticks.

        The columns `next_…` are what the next slice brought: they were not known at `available_at`, and are no inputs.

        Args:
            range: as the class tells; everything if omitted.
            symbol: label; needed if several symbols have an active model.
            model: its id; the active one if omitted.

        Raises:
            UserError: there is no such model; the sentence tells which there are.
        """
        return embeddings(self._source, range, symbol=symbol, model=model)

    def similar(self, time: Moment, k: int = 10, **options: Unpack[SearchOptions]) -> Relation:
        """The slices most similar to the slice that contains `time`, nearest first: when did the market look like this before?

        Args:
            time: any moment of the slice.
            k: how many.
            options: `before_only` (as a forecast requires), `within` (a range), `apart` (a timedelta: at least so far from the slice),
                `symbol`, `model`, `exact` (compare all vectors even if there is an index).

        Raises:
            UserError: there is no such model; or, while reading, the slice has no vector.

        Examples:
            >>> store.similar("2024-01-11T12:00", 3, before_only=True).arrow().num_rows
            3
        """
        return similar(self._source, time, k, **options)

    # ---- bars

    def bars(  # noqa: PLR0913  # what is read, each by its keyword
        self,
        symbol: str,
        range: RangeLike,
        *,
        clock: Clock | str,
        size: Size | None = None,
        side: Side | str = "aggressor",
        expectation: Expectation | None = None,
        state: BarState | None = None,
        decimals: str | None = None,
    ) -> BarsRelation:
        """Bars on a clock of trades, volume, value, time, or expected one-sidedness, made of the market trades of a range.

        A bar closes with the trade that makes it reach its size; that trade belongs to it whole, and the next bar starts at zero. The
        last bar of a range is left out until it closes. Bars begin with the first trade of the range, unless a state goes on with those
        of the range before it. Page `docs/bars.md` has every rule.

        Args:
            symbol: label.
            range: as the class tells, by event time; on the clock `time`, by trade time, as candles.
            clock: `tick`, `volume`, `dollar`, `time`; `tick_imbalance`, `volume_imbalance`, `dollar_imbalance`, `tick_runs`,
                `volume_runs`, `dollar_runs` (López de Prado 2018, section 2.3).
            size: of a bar: trades, base units, quote units, or a duration such as `"1m"`; of an adaptive clock, the trades of its first
                bar, around which it stays.
            side: on an adaptive clock, `aggressor` (the taker's side, as the exchange reports it) or `tick_rule` (by the change of the
                price).
            expectation: how an adaptive clock learns what to expect.
            state: `state` of the bars of the range before this one, on the same terms.
            decimals: `exact` or `float`.

        Raises:
            UserError: the symbol, the range or the clock is not there, or the size is none; the sentence tells what is.
        """
        return bars(self._source, symbol, range, clock=clock, size=size, side=side, expectation=expectation, state=state, decimals=decimals)

    # ---- data sets

    def dataset(  # noqa: PLR0913  # what it consists of, each by its keyword
        self,
        symbol: str,
        features: Sequence[str] | None = None,
        *,
        train: RangeLike,
        test: RangeLike | None = None,
        bars: bool | Sequence[str] = False,
        target: str | None = "return",
        horizon: Span = "5m",
        purge: Span = "1h",
        embargo: Span = "1h",
        latency: Span | None = None,
        incomplete: str = "drop",
    ) -> Dataset:
        """Rows for learning, one for each slice: its features, and as target what the price does once they are known.

        A row is known at `available_at`, the end of its slice plus the latency. Its target begins then, and ends a horizon later
        (`target_start`, `target_end`). A row trains only if its target has ended `purge` before the first test row begins, or if it
        begins `embargo` after the target of the last test row has ended (Lopez de Prado 2018, section 7.4).

        Args:
            symbol: label.
            features: names of columns of `signals.slice_features`; all of them if omitted.
            train, test: ranges as the class tells, or lists of pairs; the slices that they touch.
            bars: also the 60 bars of each slice, all 16 channels or some by name, as a column of nested lists.
            target: `return` (log), `direction` (its sign), `volatility` (sqrt of the sum of squared returns of 30 seconds), or None.
            horizon: of the target: `90s`, `5m`, `1h`, `7d`, a timedelta or seconds.
            purge: at least this long before the test a row that trains has ended.
            embargo: no row that trains begins until this long after the test.
            latency: from the end of a slice until it is known; by default that of the store.
            incomplete: `drop` leaves out rows that are not complete; `mask` keeps them, with nulls. Nothing is filled. `state` tells why:
                the slice was not loaded as it landed, trades are missing, or the target reaches into such a slice or past the last one.

        Returns:
            The data set: `train` and `test` are relations that also have `.torch()`.

        Raises:
            UserError: something that is named does not exist, or does not fit; one sentence.
        """
        return dataset(
            self._source, symbol, features, train=train, test=test, bars=bars, target=target, horizon=horizon, purge=purge, embargo=embargo,
            latency=latency, incomplete=incomplete,
        )  # fmt: skip

    # ---- versions

    def version(self, symbol: str, range: RangeLike, *, every_value: bool = False) -> str:
        """Which data the slices of a range hold: the same text for the same ticks, on any server and engine, however often they were loaded.

        It is made of what the loads recorded: number of ticks, trade ids, and exact sums of quantity and value in total and by side of
        the taker. So one change of an id, a price, a quantity or a side changes it. It does not see times and order ids, prices and
        quantities of trades that are no market trades, nor changes that leave all sums as they are.

        Args:
            symbol: label.
            range: as the class tells; the slices that it touches.
            every_value: read the ticks, and digest every value of every column instead.

        Returns:
            `records1:` or, of every value, `ticks1:`, and 32 hexadecimal digits.

        Raises:
            UserError: the symbol or the range is not there.
        """
        return version(self._source, symbol, range, every_value=every_value)
