"""Commands of the signals: train, models, similar, evaluate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from btc_assets.cli.app import App, example, out, pass_app, progress_bar, range_options, save_picture
from btc_assets.domain.errors import UserError
from btc_assets.domain.progress import Listener
from btc_assets.domain.slices import SLICE, Window, floor_slice, parse_time

if TYPE_CHECKING:
    from btc_assets.signals.evaluation.report import Evaluation

# Commands import what they need themselves, PyTorch above all.


@click.command(epilog=example("btc-assets train --from 2024-01-01 --to 2024-02-01 --activate"))
@range_options
@click.option("--kind", type=click.Choice(["rocket-pca", "tcn"]), default="rocket-pca", show_default=True, help="Kind of encoder.")
@click.option("--symbol", help="Label of the feed; needed where there are several.")
@click.option("--dim", type=click.IntRange(2, 2000), default=256, show_default=True, help="Dimension of the vectors.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="The same seed on the same slices gives the same model."
)
@click.option("--epochs", type=click.IntRange(min=1), help="How often a tcn sees each slice.")
@click.option("--device", help="cpu or cuda; by default what is there.")
@click.option("--activate", "then_activate", is_flag=True, help="Then embed all stored slices with it, and have it answer searches.")
@pass_app
def train(
    app: App,
    start: str | None, end: str | None, kind: str, symbol: str | None, dim: int, seed: int, epochs: int | None, device: str | None,
    then_activate: bool,
) -> None:  # fmt: skip
    """Train an encoder on the slices that are stored, or those of a range; training that was cut off goes on where it was."""
    from btc_assets.signals.encoders.optional import require_torch

    require_torch()
    from btc_assets.signals.workflows import TrainingPlan
    from btc_assets.signals.workflows import train as train_model

    label = app.settings.landing_feeds.by_label(symbol).label
    plan = TrainingPlan(
        symbol=label,
        kind=kind,
        start=parse_time(start) if start else None,
        end=parse_time(end) if end else None,
        dim=dim,
        seed=seed,
        epochs=epochs,
        device=device,
    )
    with progress_bar("training") as advance:
        model = train_model(app.store, app.landing.models(), app.settings.home / "training", plan, progress=advance)
    out.print(
        f"Trained {model.model_id} on {model.metrics['slices']:,} slices of {label}, {model.trained_from:%Y-%m-%d %H:%M} to "
        f"{model.trained_to:%Y-%m-%d %H:%M}, in {model.metrics['training_seconds']:.0f} s.",
        highlight=False,
        soft_wrap=True,
    )
    if then_activate:
        _activate(app, model.model_id, None, None)
    else:
        out.print(f"Next: btc-assets models activate {model.model_id}", highlight=False)


@click.group(invoke_without_command=True, epilog=example("btc-assets models"))
@click.pass_context
@pass_app
def models(app: App, context: click.Context) -> None:
    """List the trained encoders; activate or remove one."""
    if context.invoked_subcommand is None:
        _list_models(app)


def _list_models(app: App) -> None:
    from btc_assets.signals.encoders.models import read_models
    from btc_assets.signals.search import indexes

    with app.store.connect() as connection:
        rows = [
            (model, indexes.read_index(connection, model), indexes.count_vectors(connection, model)) for model in read_models(connection)
        ]
    if not rows:
        out.print("There are no models yet: train one (btc-assets train).", highlight=False)
        return
    table = Table("model", "trained on", "vectors", "index", "state")
    for column in table.columns:
        column.no_wrap = True  # eighty columns hold them
    for model, index, vectors in rows:
        state = "active" if model.active else "kept up" if model.kept_up else ""
        trained = f"{model.trained_from:%Y-%m-%d}\nto {model.trained_to:%Y-%m-%d}"
        shown = f"{index.method}\n{index.recall:.3f}" if index else "none"
        table.add_row(f"{model.model_id}\n{model.symbol}, {model.dim} dimensions", trained, f"{vectors:,}", shown, state)
    out.print(table)


@models.command(epilog=example("btc-assets models activate rocket-pca-0123456789abcdef"))
@click.argument("model_id")
@click.option("--method", type=click.Choice(["ivfflat", "hnsw"]), help="Kind of index; by default what it has, or ivfflat.")
@click.option("--element", type=click.Choice(["vector", "halfvec"]), help="What the index holds; halfvec is half as large.")
@pass_app
def activate(app: App, model_id: str, method: str | None, element: str | None) -> None:
    """Embed all stored slices with MODEL_ID, build its index, measure it, and then have it answer searches."""
    from btc_assets.signals.encoders.optional import require_torch

    require_torch()
    _activate(app, model_id, method, element)


def _activate(app: App, model_id: str, method: str | None, element: str | None) -> None:
    from btc_assets.signals import workflows
    from btc_assets.signals.encoders.models import read_model

    with app.store.connect() as connection:
        model = read_model(connection, model_id)
    with progress_bar("activating") as advance:
        done = workflows.activate(app.store, app.landing.models(), model, method=method, element=element, progress=advance)
    out.print(f"{done}.", highlight=False, soft_wrap=True)


@models.command(epilog=example("btc-assets models remove tcn-0123456789abcdef"))
@click.argument("model_id")
@pass_app
def remove(app: App, model_id: str) -> None:
    """Forget MODEL_ID and drop its vectors; its artefact stays."""
    from btc_assets.signals.encoders import models as registry

    with app.store.connect(owner=True) as connection:
        model = registry.read_model(connection, model_id)
        registry.remove_model(connection, model)
    out.print(f"Removed {model_id} and its vectors; its artefact is still at {model.uri}.", highlight=False, soft_wrap=True)


@click.command(epilog=example("btc-assets similar 2020-02-22T13:35Z -k 10 --before-only --plot similar.png"))
@click.argument("time", required=False)
@click.option("-k", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many slices to find.")
@click.option("--before-only", is_flag=True, help="Leave out what came after it.")
@range_options
@click.option(
    "--apart",
    type=click.IntRange(0, 100_000),
    default=0,
    show_default=True,
    help="Leave out what starts less than so many minutes from it.",
)
@click.option("--symbol", help="Label of the feed; needed where several have an active model.")
@click.option("--model", "model_id", help="Another model than the active one.")
@click.option("--exact", is_flag=True, help="Compare all vectors, also where there is an index.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Also save their candles, side by side, as a picture (PNG).")
@pass_app
def similar(
    app: App,
    time: str | None, k: int, before_only: bool, start: str | None, end: str | None, apart: int, symbol: str | None, model_id: str | None, exact: bool,
    plot: Path | None,
) -> None:  # fmt: skip
    """Find the slices that look most like the one of TIME, the newest unless it is given, and tell what came after them."""
    from btc_assets.signals.search.plot import read_pictures
    from btc_assets.signals.search.similar import read_active_model, read_newest_slice
    from btc_assets.signals.search.similar import similar as search

    within = _within(start, end)
    with app.store.connect() as connection:
        moment = parse_time(time) if time else read_newest_slice(connection, model_id or read_active_model(connection, symbol))
        found = search(
            connection, moment, k, before_only=before_only, within=within, apart=timedelta(minutes=apart), symbol=symbol, model_id=model_id,
            exact=exact,
        )  # fmt: skip
        if not found:
            raise UserError("No other slice is embedded in that range: widen it, or load more (btc-assets load).")
        pictures = read_pictures(connection, floor_slice(moment), found) if plot else None
    table = Table(
        "slice", "distance", "ticks", "return", "volatility", "volume", "trades", title="The four on the right are of the slice after it"
    )
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for one in found:
        table.add_row(f"{one.bucket_5m:%Y-%m-%dT%H:%MZ}", f"{one.distance:.4f}", f"{one.tick_count:,}", *_labels(one.label_snapshot))
    out.print(f"Like {moment:%Y-%m-%dT%H:%MZ}:", highlight=False)
    out.print(table)
    if plot and pictures:
        from btc_assets.signals.search.plot import plot_neighbours

        save_picture(plot, plot_neighbours(pictures))
        out.print(f"Saved their candles to {plot}.", highlight=False)


def _within(start: str | None, end: str | None) -> Window | None:
    if not start and not end:
        return None
    return Window.covering(
        parse_time(start) if start else parse_time("2009-01-03"), parse_time(end) if end else floor_slice(datetime.now(UTC)) + SLICE
    )


def _labels(labels: dict[str, float] | None) -> tuple[str, str, str, str]:
    if labels is None:
        return "", "", "", ""
    return (
        f"{labels['next_return']:+.2%}", f"{labels['next_realized_volatility']:.2%}", f"{labels['next_volume']:,.1f}",
        f"{labels['next_trade_count']:,}",
    )  # fmt: skip


@click.command(epilog=example("btc-assets evaluate --from 2024-01-01 --to 2024-03-01 --plot evaluation.png"))
@range_options
@click.option("--symbol", help="Label of the feed; needed where there are several.")
@click.option(
    "--model",
    "model_ids",
    multiple=True,
    help="A model to judge, again for more; by default one is trained on what lies before the questions.",
)
@click.option("--kind", type=click.Choice(["rocket-pca", "tcn"]), default="rocket-pca", show_default=True, help="Kind of that one.")
@click.option(
    "--generated",
    type=click.IntRange(min=3),
    metavar="DAYS",
    help="Judge it on a generated market of so many days, whose regimes are known.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Also save a picture (PNG).")
@pass_app
def evaluate(
    app: App,
    start: str | None, end: str | None, symbol: str | None, model_ids: tuple[str, ...], kind: str, generated: int | None, seed: int, plot: Path | None
) -> None:  # fmt: skip
    """Compare what similar slices foretell of the next one with simpler forecasts, without looking ahead."""
    from btc_assets.signals.encoders.optional import require_torch

    require_torch()
    from rich.markdown import Markdown

    from btc_assets.signals import workflows

    with progress_bar("evaluating") as advance:
        if generated:
            result = workflows.evaluate_generated(days=generated, kind=kind, seed=seed, progress=advance)
        else:
            result = _evaluate_stored(app, start, end, symbol, model_ids, kind, seed, advance)
    out.print(Markdown(result.to_markdown()) if out.is_terminal else result.to_markdown(), highlight=False, soft_wrap=True)
    if plot:
        save_picture(plot, result.plot())
        out.print(f"Saved a picture to {plot}.", highlight=False)


def _evaluate_stored(
    app: App, start: str | None, end: str | None, symbol: str | None, model_ids: tuple[str, ...], kind: str, seed: int, advance: Listener
) -> Evaluation:
    from btc_assets.signals import workflows
    from btc_assets.signals.encoders.models import read_model

    label = app.settings.landing_feeds.by_label(symbol).label
    with app.store.connect() as connection:
        window = workflows.newest_window(connection, label, parse_time(start) if start else None, parse_time(end) if end else None)
        trained = [read_model(connection, model_id) for model_id in model_ids]
        return workflows.evaluate_stored(
            app.store, app.landing.models(), label, window, trained=trained, kind=kind, seed=seed, progress=advance
        )
