"""A training run that knows nothing of what it is tested on, and the alarm of one that does."""

import marimo

app = marimo.App(width="medium", app_title="A training run without a leak")


@app.cell
def _():
    from importlib.util import find_spec

    import marimo as mo
    import matplotlib.pyplot as plt
    import numpy as np
    import polars as pl

    import btc_assets as btc

    return btc, find_spec, mo, np, pl, plt


@app.cell
def _(btc, find_spec, mo, pl):
    mo.stop(find_spec("torch") is None, mo.md("# PyTorch is not installed\n\n`make similar` installs it."))
    import torch

    store = btc.connect(decimals="float")
    symbols = store.symbols().polars().filter(pl.col("slices") > 100)
    mo.stop(symbols.is_empty(), mo.md("# Too little is loaded\n\n`make demo` loads a generated day, `btc-assets load` your own."))
    return store, symbols, torch


@app.cell
def _(mo, symbols):
    symbol = mo.ui.dropdown(symbols["symbol"].to_list(), value=symbols["symbol"][0], label="symbol")
    tested = mo.ui.slider(10, 50, step=5, value=30, label="% of the time to test on", show_value=True)
    epochs = mo.ui.slider(2, 40, step=2, value=6, label="epochs", show_value=True)
    mo.vstack(
        [
            mo.md(
                "# A training run without a leak\n\nA small network forecasts how much the price moves in the five minutes that begin once a "
                "slice is known. Rows that train end an hour before the first one that tests begins."
            ),
            mo.hstack([symbol, tested, epochs], justify="start", gap=2),
        ]
    )
    return epochs, symbol, tested


@app.cell
def _(mo, pl, store, symbol, symbols, tested):
    stored = symbols.row(by_predicate=pl.col("symbol") == symbol.value, named=True)
    cut = stored["end"] - (stored["end"] - stored["first_slice"]) * tested.value / 100
    FEATURES = ["trade_count", "volume", "realized_volatility", "parkinson_volatility", "volume_imbalance", "log_return"]
    dataset = store.dataset(
        symbol.value, FEATURES, train=(stored["first_slice"], cut), test=(cut, stored["end"]), target="volatility", horizon="5m", purge="1h"
    )
    counts = dataset.count()
    mo.stop(min(counts[part].get("complete", 0) for part in ("train", "test")) < 20, mo.md("Too few complete slices to train and test on."))
    mo.vstack([mo.md(f"`{dataset!r}`"), mo.ui.table([{"part": part} | states for part, states in counts.items()], selection=None)])
    return FEATURES, counts, dataset


@app.cell
def _(FEATURES, dataset, epochs, np, torch):
    torch.manual_seed(0)
    torch.set_num_threads(1)

    # Whatever is fitted, the scale as well, is fitted on rows that train.
    train, test = dataset.train.polars(), dataset.test.polars()
    middle, spread = train.select(FEATURES).mean().to_numpy(), train.select(FEATURES).std().to_numpy() + 1e-12
    level = float(np.log(train["target"].to_numpy() + 1e-6).mean())

    network = torch.nn.Sequential(torch.nn.Linear(len(FEATURES), 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.01)

    def forecast(features):
        """The logarithm of the volatility."""
        scaled = (features - torch.tensor(middle, dtype=torch.float32)) / torch.tensor(spread, dtype=torch.float32)
        return network(scaled.clamp(-5, 5)).squeeze(-1) + level

    rows = dataset.train.torch(batch_size=16, seed=1)  # streams from the store; another order in each epoch
    losses = []
    for _epoch in range(epochs.value):
        total = []
        for batch in rows:
            loss = torch.nn.functional.mse_loss(forecast(batch["features"]), torch.log(batch["target"] + 1e-6))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total.append(loss.item())
        losses.append(float(np.mean(total)))
    return forecast, losses, test, train


@app.cell
def _(FEATURES, forecast, mo, np, pl, test, torch, train):
    actual = np.log(test["target"].to_numpy() + 1e-6)
    with torch.no_grad():
        predicted = forecast(torch.tensor(test.select(FEATURES).to_numpy(), dtype=torch.float32)).numpy()

    def _r2(guess):
        mean = np.log(train["target"].to_numpy() + 1e-6).mean()
        return round(float(1 - ((actual - guess) ** 2).sum() / ((actual - mean) ** 2).sum()), 3)

    scale = np.log(train["target"].to_numpy() + 1e-6).mean() - np.log(train["realized_volatility"].to_numpy() + 1e-6).mean()
    persistence = np.log(test["realized_volatility"].to_numpy() + 1e-6) + scale
    scores = pl.DataFrame(
        {"forecast": ["as volatile as the slice itself", "the network"], "R2 on the test": [_r2(persistence), _r2(predicted)]}
    )
    mo.vstack([mo.md("R2 is 1 for a perfect forecast, and 0 for one that always says the mean of the rows that train."), scores])
    return actual, predicted, scores


@app.cell
def _(actual, losses, plt, predicted, test):
    def _draw():
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), width_ratios=[1, 2], layout="constrained")
        left.plot(losses, color="#5c6bc0")
        left.set(xlabel="epoch", ylabel="loss on the training rows")
        right.plot(test["bucket_5m"], actual, color="#90a4ae", linewidth=1, label="what came")
        right.plot(test["bucket_5m"], predicted, color="#ff7043", linewidth=1.5, label="forecast")
        right.set(ylabel="log volatility of 5 minutes", title="the rows that test")
        right.tick_params(axis="x", labelrotation=30)
        right.legend(frameon=False)
        return figure

    picture = _draw()
    picture
    return (picture,)


@app.cell
def _(dataset, mo, train, test, pl):
    # A feature that was joined by the wrong time: it is what the slice should forecast.
    _both = pl.concat([train, test]).select("bucket_5m", "target")
    leaking = dataset.with_features(_both.rename({"target": "from_the_future"}))
    honest, alarms = dataset.check_leaks(), leaking.check_leaks()
    _said = "\n".join(f"* {sentence}" for sentence in alarms)
    mo.md(
        f"## Does anything know the future?\n\n`dataset.check_leaks()` found {len(honest) or 'no'} signs of it. "
        f"With a column of the future among the features, it says:\n\n{_said}"
    )
    return alarms, honest


if __name__ == "__main__":
    app.run()
