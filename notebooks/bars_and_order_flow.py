"""Bars on other clocks than the wall's, and what the order flow in them tells."""

import marimo

app = marimo.App(width="medium", app_title="Bars and order flow")


@app.cell
def _():
    from datetime import timedelta

    import marimo as mo
    import matplotlib.pyplot as plt
    import numpy as np
    import polars as pl

    import btc_assets as btc

    return btc, mo, np, pl, plt, timedelta


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
    count = mo.ui.slider(48, 576, step=48, value=288, label="bars, about", show_value=True)
    mo.vstack(
        [
            mo.md(
                "# Bars and order flow\n\nA bar of the clock closes every few minutes, whether anybody trades or not. The others close after so "
                "many trades, coins or dollars, so they are many while much happens and few while nothing does."
            ),
            mo.hstack([symbol, day, count], justify="start", gap=2),
        ]
    )
    return count, day, symbol


@app.cell
def _(count, day, mo, store, symbol):
    hours = store.candles(symbol.value, "1h", day.value).polars()
    mo.stop(hours.is_empty(), mo.md(f"No trade of {symbol.value} on {day.value}."))
    sizes = {
        "time": f"{1440 // count.value}m",
        "tick": max(hours["trade_count"].sum() // count.value, 1),
        "volume": round(hours["volume"].sum() / count.value, 6),
        "dollar": round(hours["quote_volume"].sum() / count.value),
    }
    bars = {clock: store.bars(symbol.value, day.value, clock=clock, size=size).polars() for clock, size in sizes.items()}
    return bars, hours, sizes


@app.cell
def _(bars, mo, np, pl, sizes):
    def returns(bars):
        """Of each bar, from the close of the one before it, in basis points."""
        return np.diff(np.log(bars["close"].to_numpy())) * 1e4

    def figures(clock):
        moves = returns(bars[clock])
        around = moves - moves.mean()
        return {
            "clock": clock,
            "size": str(sizes[clock]) if clock == "time" else f"{sizes[clock]:,}",
            "bars": len(bars[clock]),
            "deviation (bp)": round(float(moves.std()), 2),
            "excess kurtosis": round(float((around**4).mean() / (around**2).mean() ** 2 - 3), 2),
            "autocorrelation": round(float(around[1:] @ around[:-1] / (around @ around)), 3),
        }

    table = pl.DataFrame([figures(clock) for clock in bars])
    mo.vstack([mo.md("Returns of bars that follow what happens are nearer to a normal distribution, whose excess kurtosis is 0."), table])
    return returns, table


@app.cell
def _(bars, day, plt, symbol):
    def _draw():
        figure, axes = plt.subplots(figsize=(11, 3.4), layout="constrained")
        for (clock, found), color in zip(bars.items(), ("#90a4ae", "#5c6bc0", "#26a69a", "#ff7043"), strict=True):
            hours = found.group_by(found["close_time"].dt.hour().alias("hour")).len().sort("hour")
            axes.step(hours["hour"], hours["len"], where="post", color=color, label=clock)
        axes.set(xlim=(0, 24), xlabel="hour (UTC)", ylabel="bars an hour", title=f"{symbol.value}, {day.value}: when bars close")
        axes.legend(frameon=False, ncols=4)
        return figure

    clocks_picture = _draw()
    clocks_picture
    return (clocks_picture,)


@app.cell
def _(bars, mo):
    clock = mo.ui.dropdown(list(bars), value="dollar", label="clock")
    clock
    return (clock,)


@app.cell
def _(bars, clock, np, plt, returns):
    flow = bars[clock.value]["order_flow_imbalance"].to_numpy()[1:]
    moves = returns(bars[clock.value])
    correlation = float(np.corrcoef(flow, moves)[0, 1])

    def _draw():
        figure, (same, after) = plt.subplots(1, 2, sharey=True, figsize=(11, 3.8), layout="constrained")
        same.scatter(flow, moves, s=8, color="#ff7043", alpha=0.6)
        same.set(xlabel="order-flow imbalance of the bar", ylabel="return (bp)", title=f"the same bar: correlation {correlation:.2f}")
        after.scatter(flow[:-1], moves[1:], s=8, color="#90a4ae", alpha=0.6)
        after.set(xlabel="order-flow imbalance of the bar before", title=f"the next bar: {np.corrcoef(flow[:-1], moves[1:])[0, 1]:.2f}")
        return figure

    flow_picture = _draw()
    flow_picture
    return correlation, flow_picture


if __name__ == "__main__":
    app.run()
