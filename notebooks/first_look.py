"""A first look at a store: candles, volume, what is missing, and the slices that looked alike. `make explore` opens it as an app."""

import marimo

app = marimo.App(width="medium", app_title="A first look at the store")


@app.cell
def _():
    from datetime import UTC, timedelta

    import marimo as mo
    import matplotlib.pyplot as plt
    import polars as pl
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num, num2date

    import btc_assets as btc
    from btc_assets.domain.errors import UserError

    return UTC, AutoDateLocator, ConciseDateFormatter, btc, date2num, mo, num2date, pl, plt, timedelta, UserError


@app.cell
def _(btc, mo, pl):
    store = btc.connect(decimals="float")
    symbols = store.symbols().polars().filter(pl.col("slices") > 0)
    mo.stop(symbols.is_empty(), mo.md("# Nothing is loaded yet\n\n`make demo` loads a generated day, `btc-assets load` your own."))
    return store, symbols


@app.cell
def _(mo, symbols, timedelta):
    symbol = mo.ui.dropdown(symbols["symbol"].to_list(), value=symbols["symbol"][0], label="symbol")
    _first, _last = symbols["first_slice"].min().date(), (symbols["end"].max() - timedelta(minutes=5)).date()
    day = mo.ui.date(start=_first, stop=_last, value=_last, label="day (UTC)")
    interval = mo.ui.dropdown(["1m", "5m", "15m", "1h"], value="15m", label="candles")
    mo.vstack([mo.md("# A first look at the store"), mo.hstack([symbol, day, interval], justify="start", gap=2)])
    return day, interval, symbol


@app.cell
def _(UserError, day, interval, pl, store, symbol):
    candles = store.candles(symbol.value, interval.value, day.value).polars()
    try:
        gaps = store.gaps(day.value, symbol.value).polars()
        _holes = "one gap" if len(gaps) == 1 else f"{len(gaps):,} gaps"
        missing = f"{gaps['missing'].sum():,} trades are missing, in {_holes} (yellow)." if len(gaps) else "No trade is missing."
    except UserError as error:  # the exchange itself skips ids
        gaps, missing = pl.DataFrame({"bucket_5m": []}), str(error)
    return candles, gaps, missing


@app.cell
def _(AutoDateLocator, ConciseDateFormatter, candles, date2num, day, gaps, interval, missing, mo, plt, symbol, timedelta):
    def _draw():
        _, (prices, volumes) = plt.subplots(2, sharex=True, figsize=(11, 5), height_ratios=[3, 1], layout="constrained")
        width = {"m": 1, "h": 60}[interval.value[-1]] * int(interval.value[:-1]) / 1440  # days
        middle = date2num(candles["bucket"].to_list()) + width / 2
        rising = (candles["close"] >= candles["open"]).to_numpy()
        for chosen, color in ((rising, "#26a69a"), (~rising, "#ef5350")):
            some, at = candles.filter(chosen), middle[chosen]
            prices.vlines(at, some["low"], some["high"], color=color, linewidth=1)
            prices.bar(at, some["close"] - some["open"], width * 0.7, some["open"], color=color)
            volumes.bar(at, some["volume"], width * 0.7, color=color)
        for before in gaps["bucket_5m"]:
            for axes in (prices, volumes):
                axes.axvspan(before, before + timedelta(minutes=5), color="#ffb300", alpha=0.6)
        prices.set(title=f"{symbol.value}, {day.value}, candles of {interval.value}", ylabel="price (USDT)")
        volumes.set(ylabel="volume (BTC)", xlim=(date2num(day.value), date2num(day.value) + 1))
        locator = AutoDateLocator()
        volumes.xaxis.set_major_locator(locator)
        volumes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        return prices

    mo.stop(candles.is_empty(), mo.md(f"No trade of {symbol.value} on {day.value}."))
    picture = mo.ui.matplotlib(_draw(), debounce=True)
    mo.vstack([picture, mo.md(f"{missing} Drag over a piece of the picture: the slice in its middle is looked for below.")])
    return (picture,)


@app.cell
def _(UTC, candles, mo, num2date, picture, timedelta):
    def _slice(moment):
        return moment - (moment - moment.replace(hour=0, minute=0, second=0, microsecond=0)) % timedelta(minutes=5)

    marked = picture.value
    if hasattr(marked, "x_min"):
        asked = _slice(num2date((marked.x_min + marked.x_max) / 2, UTC))
    else:
        asked = _slice(candles["bucket"][candles["trade_count"].arg_max()])
    mo.md(f"## Slices that looked like {asked:%H:%M}")
    return (asked,)


@app.cell
def _(UserError, asked, mo, store, symbol, timedelta):
    try:
        similar = store.similar(asked, 6, symbol=symbol.value, apart=timedelta(minutes=30)).polars()
    except UserError as error:
        mo.stop(True, mo.md(f"{error} `make similar` trains an encoder."))
    return (similar,)


@app.cell
def _(asked, mo, pl, plt, similar, store, symbol, timedelta):
    MINUTES = timedelta(minutes=1)

    def _path(start):
        """The price, second by second, in the slice and for ten minutes after it, in basis points of its end."""
        seconds = store.candles(symbol.value, "1s", (start, start + 15 * MINUTES)).polars()
        minutes = (seconds["bucket"] - start).dt.total_milliseconds() / 60_000
        end = seconds.filter(minutes < 5)["close"].tail(1)
        return minutes, (seconds["close"] / (end[0] if len(end) else seconds["close"][0]) - 1) * 1e4

    def _draw():
        figure, panels = plt.subplots(1, 7, sharey=True, figsize=(11, 2.4), layout="constrained")
        starts = [asked, *similar["bucket_5m"]]
        for axes, start, distance in zip(panels, starts, [None, *similar["distance"]], strict=False):
            minutes, price = _path(start)
            axes.axvspan(0, 5, color="#ffe0b2", zorder=0)
            axes.plot(minutes, price, linewidth=0.8, color="black" if start == asked else "#ff7043")
            axes.set_title(f"{start:%d %b %H:%M}" + (f"\n{distance:.3f}" if distance is not None else "\nthis one"), fontsize=9)
            axes.set(xlim=(0, 15), xticks=[0, 5, 15])
        panels[0].set_ylabel("price (bp)")
        figure.supxlabel("minutes", fontsize=9)
        return figure

    similar_picture = _draw()
    mo.vstack([similar_picture, mo.md("Shaded: what was compared, with its distance (0 to 2). The rest is what came next.")])
    return (similar_picture,)


@app.cell
def _(day, gaps, mo, store, symbol):
    coverage = store.coverage(day.value, symbol.value).polars()
    _plain = {"selection": None, "show_data_types": False, "show_download": False, "show_search": False}
    _tables = [mo.ui.table(rows, **_plain) for rows in (coverage, gaps) if len(rows)]
    mo.vstack([mo.md("## What is there"), *_tables])
    return (coverage,)


if __name__ == "__main__":
    app.run()
