"""The basis: how far the price of a perpetual lies above that of the spot market, minute by minute and trade by trade."""

import marimo

app = marimo.App(width="medium", app_title="Basis of spot and perpetual")


@app.cell
def _():
    from datetime import timedelta

    import marimo as mo
    import matplotlib.pyplot as plt
    import numpy as np
    import polars as pl
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    import btc_assets as btc

    return AutoDateLocator, ConciseDateFormatter, btc, mo, np, pl, plt, timedelta


@app.cell
def _(btc, mo, pl):
    store = btc.connect(decimals="float")
    loaded = store.symbols().polars().filter(pl.col("slices") > 0)
    labels = loaded["symbol"].to_list()
    mo.stop(len(labels) < 2, mo.md("# One symbol has no basis\n\n`btc-assets demo --perpetual` makes a store with two."))
    return labels, loaded, store


@app.cell
def _(labels, loaded, mo, timedelta):
    spot = mo.ui.dropdown(labels, value=labels[0], label="spot")
    perpetual = mo.ui.dropdown(labels, value=labels[1], label="perpetual")
    _first, _last = loaded["first_slice"].max().date(), (loaded["end"].min() - timedelta(minutes=5)).date()
    day = mo.ui.date(start=_first, stop=_last, value=_last, label="day (UTC)")
    mo.vstack([mo.md("# Basis of spot and perpetual"), mo.hstack([spot, perpetual, day], justify="start", gap=2)])
    return day, perpetual, spot


@app.cell
def _(day, mo, perpetual, pl, spot, store):
    mo.stop(spot.value == perpetual.value, mo.md("Choose two symbols."))
    candles = store.candles([spot.value, perpetual.value], "1m", day.value, ["close"], wide=True).polars().drop_nulls()
    ratio = pl.col(f"close_{perpetual.value}") / pl.col(f"close_{spot.value}")
    basis = candles.with_columns(basis_points=(ratio - 1) * 1e4)
    return (basis,)


@app.cell
def _(AutoDateLocator, ConciseDateFormatter, basis, day, perpetual, plt, spot):
    def _draw():
        figure, (prices, points) = plt.subplots(2, sharex=True, figsize=(11, 5.2), height_ratios=[2, 1], layout="constrained")
        for label, color in ((spot.value, "#546e7a"), (perpetual.value, "#ff7043")):
            prices.plot(basis["bucket"], basis[f"close_{label}"], color=color, linewidth=1, label=label)
        prices.legend(frameon=False)
        prices.set(ylabel="price (USDT)", title=f"{perpetual.value} over {spot.value}, {day.value}, minute by minute")
        points.plot(basis["bucket"], basis["basis_points"], color="#26a69a", linewidth=1)
        points.axhline(0, color="black", linewidth=0.5)
        points.set(ylabel="basis (bp)")
        locator = AutoDateLocator()
        points.xaxis.set_major_locator(locator)
        points.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        return figure

    picture = _draw()
    picture
    return (picture,)


@app.cell
def _(basis, mo, np):
    def _half_life(values):
        """Minutes until half of a deviation from the mean is gone, if it decays as an autoregression of order one."""
        deviation = values - values.mean()
        persistence = deviation[1:] @ deviation[:-1] / (deviation[:-1] @ deviation[:-1])
        return np.log(0.5) / np.log(persistence) if 0 < persistence < 1 else np.nan

    half_life = _half_life(basis["basis_points"].to_numpy())
    mo.md(
        f"Of {len(basis):,} minutes in which both were traded, the basis was {basis['basis_points'].mean():.2f} bp on average, "
        f"with a standard deviation of {basis['basis_points'].std():.2f} bp. Half of a deviation is gone after {half_life:.0f} minutes."
    )
    return (half_life,)


if __name__ == "__main__":
    app.run()
