"""When did the market look like this before, and what came next?"""

import marimo

app = marimo.App(width="medium", app_title="When did the market look like this before?")


@app.cell
def _():
    from datetime import UTC, datetime, timedelta

    import marimo as mo
    import matplotlib.pyplot as plt
    import numpy as np
    import polars as pl

    import btc_assets as btc
    from btc_assets.domain.errors import UserError

    return UTC, UserError, btc, datetime, mo, np, pl, plt, timedelta


@app.cell
def _(UserError, btc, mo):
    store = btc.connect(decimals="float")
    try:
        embedded = store.embeddings().polars().drop_nulls("embedding")
    except UserError as error:
        mo.stop(True, mo.md(f"# No slice has a vector yet\n\n{error}\n\n`make similar` trains an encoder on what is stored."))
    symbol = embedded["symbol"][0]
    return embedded, store, symbol


@app.cell
def _(embedded, mo):
    times = [f"{time:%Y-%m-%d %H:%M}" for time in embedded["bucket_5m"].sort()]
    asked = mo.ui.dropdown(times, value=times[len(times) * 2 // 3], label="slice (UTC)", searchable=True)
    k = mo.ui.slider(2, 40, value=12, label="how many", show_value=True)
    apart = mo.ui.slider(0, 720, step=30, value=60, label="minutes apart, at least", show_value=True)
    before = mo.ui.checkbox(label="only earlier ones")
    mo.vstack(
        [mo.md("# When did the market look like this before?"), mo.hstack([asked, k, apart, before], justify="start", gap=2, wrap=True)]
    )
    return apart, asked, before, k


@app.cell
def _(UTC, apart, asked, before, datetime, k, mo, store, symbol, timedelta):
    time = datetime.strptime(asked.value, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    found = store.similar(time, k.value, symbol=symbol, apart=timedelta(minutes=apart.value), before_only=before.value).polars()
    mo.stop(found.is_empty(), mo.md("No slice lies in that range."))
    return found, time


@app.cell
def _(found, np, store, symbol, time, timedelta):
    HOUR = timedelta(hours=1)

    def path(start):
        """The price, second by second, from five minutes before the end of a slice to an hour after it, as a share of its end, in basis points."""
        candles = store.candles(symbol, "1s", (start, start + timedelta(minutes=5) + HOUR)).polars()
        minutes = (candles["bucket"] - (start + timedelta(minutes=5))).dt.total_seconds() / 60
        inside = (minutes < 0).to_numpy()
        if not inside.any():
            return np.empty(0), np.empty(0)
        return minutes.to_numpy(), (candles["close"].to_numpy() / candles["close"].to_numpy()[inside][-1] - 1) * 1e4

    paths = {start: path(start) for start in [time, *found["bucket_5m"]]}
    return HOUR, path, paths


@app.cell
def _(np, paths, plt, symbol, time):
    def _draw():
        figure, axes = plt.subplots(figsize=(11, 4.6), layout="constrained")
        for start, (minutes, price) in paths.items():
            if start != time:
                axes.plot(minutes, price, color="#90a4ae", linewidth=0.8)
        grid = np.arange(0, 60.0)
        after = [np.interp(grid, *path) for start, path in paths.items() if start != time and len(path[0]) and path[0][-1] > 55]
        if after:
            axes.plot(grid, np.mean(after, axis=0), color="#ff7043", linewidth=2, label=f"mean of {len(after)} that looked like it")
        axes.plot(*paths[time], color="black", linewidth=1.5, label=f"{time:%Y-%m-%d %H:%M}")
        axes.axvspan(-5, 0, color="#ffe0b2", zorder=0)
        axes.set(
            xlabel="minutes after the slice", ylabel="price (bp from its end)", title=f"{symbol}: what followed slices that looked alike"
        )
        axes.legend(frameon=False, loc="upper left")
        return figure

    picture = _draw()
    picture
    return (picture,)


@app.cell
def _(found, mo):
    mo.vstack(
        [
            mo.md("The shaded five minutes are what was compared. What followed is no part of the comparison."),
            mo.ui.table(found, selection=None, show_data_types=False, show_download=False, show_search=False),
        ]
    )
    return


if __name__ == "__main__":
    app.run()
