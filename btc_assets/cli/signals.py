"""Commands of the signals: train, models, similar, evaluate."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from btc_assets.cli.app import App, example, parse_past_time, pass_app, plot_option, progress_bar, range_options, save_picture
from btc_assets.cli.console import err, lines, out
from btc_assets.cli.output import Columns, Kind, format_option, part_option, print_rows
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window, floor_slice, parse_time

if TYPE_CHECKING:
    from rich.text import Text

    from btc_assets.signals.encoders.kinds import Kinds
    from btc_assets.signals.encoders.models import Model
    from btc_assets.signals.evaluation.report import Evaluation, Row
    from btc_assets.signals.search.indexes import Index
    from btc_assets.signals.search.similar import Neighbor

# Commands import what they need inside their functions, PyTorch above all. A command has one parameter for each of its options.

_FIRST_BITCOIN_DAY = "2009-01-03"
_SHOWN = 3  # slices that are named, of those that changed


def _kind_option(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    more = "rocket-pca, tcn, one that a package or BTC_ASSETS_ENCODERS declares, or any class as package.module:Class."
    return click.option("--kind", metavar="KIND", default="rocket-pca", show_default=True, help=f"{what}: {more}")


_device_option = click.option("--device", help="Where PyTorch computes, cpu or cuda; by default, the GPU if there is one.")


@click.command(epilog=example("btc-assets train --from 2024-01-01 --to 2024-02-01 --activate"))
@range_options
@_kind_option("Kind of encoder")
@click.option("--symbol", help="Label of the feed; needed if there are several.")
@click.option("--dim", type=click.IntRange(2, 2000), default=256, show_default=True, help="Dimension of the vectors.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="The same seed on the same slices gives the same model."
)
@click.option("--epochs", type=click.IntRange(min=1), help="How many times a tcn sees each slice.")
@_device_option
@click.option("--activate", "then_activate", is_flag=True, help="Then embed all stored slices with the model, and let it answer searches.")
@pass_app
def train(
    app: App,
    start: str | None, end: str | None, kind: str, symbol: str | None, dim: int, seed: int, epochs: int | None, device: str | None,
    then_activate: bool,
) -> None:  # fmt: skip
    """Train an encoder on the stored slices, or on those of a range. Interrupted training resumes where it stopped."""
    first, last = parse_past_time(start), _time(end)  # before anything slow is imported
    from btc_assets.signals.encoders.kinds import Kinds
    from btc_assets.signals.encoders.options import FitOptions
    from btc_assets.signals.encoders.training import TrainingPlan, train_model

    kinds, name = Kinds.of(app.settings).with_class(kind)
    label = app.settings.landing_feeds.by_label(symbol).label
    plan = TrainingPlan(label, name, first, last, FitOptions(dim, seed, device, epochs), kinds)
    with progress_bar("training") as advance:
        model = train_model(app.store, app.landing.models(), app.settings.home / "training", plan, progress=advance)
    out.print(
        f"Trained {model.model_id} on {model.metrics['slices']:,} slices of {label}, {model.trained_from:%Y-%m-%d %H:%M} to "
        f"{model.trained_to:%Y-%m-%d %H:%M}, in {model.metrics['training_seconds']:.0f} s."
    )
    if kinds != Kinds.of(app.settings):
        out.print(f"Other processes find its class by BTC_ASSETS_ENCODERS={name}={kind}, or by an entry point of its package.")
    if then_activate:
        _activate(app, model, kinds, device)
    else:
        out.print(f"Next: btc-assets models activate {model.model_id}")


@click.group(invoke_without_command=True, epilog=example("btc-assets models"))
@format_option()
@click.pass_context
@pass_app
def models(app: App, context: click.Context, form: str) -> None:
    """List the trained encoders; activate or remove one."""
    if context.invoked_subcommand is None:
        _list_models(app, form)


_MODEL_COLUMNS: Columns = {
    "model_id": "text", "kind": "text", "symbol": "text", "dim": "integer", "trained_from": "time", "trained_to": "time", "uri": "text",
    "kept_up": "flag", "active": "flag", "created_at": "time", "data_version": "text", "vectors": "integer", "index": "text",
    "recall": "number", "changed_slices": "integer",
}  # fmt: skip


def _list_models(app: App, form: str) -> None:
    from btc_assets.signals.encoders.models import read_changed_slices, read_models
    from btc_assets.signals.search.indexes import count_vectors, read_index

    with app.store.connect() as connection:
        rows = [
            (model, read_index(connection, model), count_vectors(connection, model), read_changed_slices(connection, model))
            for model in read_models(connection)
        ]
    if form != "table":
        print_rows(form, _MODEL_COLUMNS, (_model_values(*row) for row in rows))
        return
    if not rows:
        out.print("There are no models yet: train one (btc-assets train).")
        return
    table = Table("model", "trained on", "vectors", "index", "state")
    for column in table.columns:
        column.no_wrap = True  # the table fits into 80 columns
    for model, index, vectors, _ in rows:
        table.add_row(*_model_row(model, index, vectors))
    out.print(table)
    for model, _, _, changed in rows:
        if changes := _tell_changes(changed):
            out.print(f"{model.model_id} {changes}.")


def _tell_changes(changed: list[datetime] | None) -> str:
    """What a model was trained on that is other data now; empty if nothing is."""
    if changed is None:
        return "was trained by a release that did not record its data, or on slices that such a release loaded: whether they changed is unknown"
    if not changed:
        return ""
    count = "1 slice that has" if len(changed) == 1 else f"{len(changed):,} slices that have"
    more = f" and {len(changed) - _SHOWN:,} more" if len(changed) > _SHOWN else ""
    return f"was trained on {count} changed since: {', '.join(f'{each:{KEY_FORMAT}}' for each in changed[:_SHOWN])}{more}"


def _model_values(model: Model, index: Index | None, vectors: int, changed: list[datetime] | None) -> tuple[object, ...]:
    own = [getattr(model, name) for name in list(_MODEL_COLUMNS)[:-4]]
    return *own, vectors, index and index.method, index and index.recall, None if changed is None else len(changed)


def _model_row(model: Model, index: Index | None, vectors: int) -> tuple[Text | str, ...]:
    return (
        lines(f"{model.model_id}\n{model.symbol}, {model.dim} dimensions"),
        lines(f"{model.trained_from:%Y-%m-%d}\nto {model.trained_to:%Y-%m-%d}"),
        f"{vectors:,}",
        lines(f"{index.method}\n{index.recall:.3f}") if index else "none",
        "active" if model.active else "maintained" if model.kept_up else "",
    )


@models.command(epilog=example("btc-assets models activate rocket-pca-0123456789abcdef"))
@click.argument("model_id")
@click.option("--method", type=click.Choice(["ivfflat", "hnsw"]), help="Kind of index; by default the present one, or ivfflat.")
@click.option("--element", type=click.Choice(["vector", "halfvec"]), help="What the index holds; halfvec takes half the space.")
@_device_option
@pass_app
def activate(app: App, model_id: str, method: str | None, element: str | None, device: str | None) -> None:
    """Embed all stored slices with MODEL_ID, build and measure its index, then let it answer searches."""
    from btc_assets.signals.encoders.kinds import Kinds
    from btc_assets.signals.encoders.models import read_model

    with app.store.connect() as connection:
        model = read_model(connection, model_id)
    _activate(app, model, Kinds.of(app.settings), device, method, element)


def _activate(app: App, model: Model, kinds: Kinds, device: str | None, method: str | None = None, element: str | None = None) -> None:
    from btc_assets.signals.encoders.artifacts import load_encoder
    from btc_assets.signals.search.activation import embed_and_activate

    encoder = load_encoder(model.model_id, app.landing.models(), kinds=kinds, device=device)
    with progress_bar("activating") as advance:
        done = embed_and_activate(app.store, model, encoder, method=method, element=element, progress=advance)
    out.print(f"{done}.")


@models.command(epilog=example("btc-assets models remove tcn-0123456789abcdef"))
@click.argument("model_id")
@pass_app
def remove(app: App, model_id: str) -> None:
    """Remove MODEL_ID and drop its vectors; its artifact stays."""
    from btc_assets.signals.encoders.models import read_model, remove_model

    with app.store.connect(owner=True) as connection:
        model = read_model(connection, model_id)
        remove_model(connection, model)
    out.print(f"Removed {model_id} and its vectors; its artifact is still at {model.uri}.")


@click.command(epilog=example("btc-assets similar 2020-02-22T13:35Z -k 10 --before-only --plot similar.png"))
@click.argument("time", required=False)
@click.option("-k", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many slices to find.")
@click.option("--before-only", is_flag=True, help="Only slices before it.")
@range_options
@click.option(
    "--apart",
    type=click.IntRange(0, 100_000),
    default=0,
    show_default=True,
    help="Only slices that start at least this many minutes before or after it.",
)
@click.option("--symbol", help="Label of the feed; needed if several have an active model.")
@click.option("--model", "model_id", help="Search with this model instead of the active one.")
@click.option("--exact", is_flag=True, help="Compare all vectors, even if there is an index.")
@plot_option("Also save their candles and what came next, side by side, as a picture")
@format_option()
@pass_app
def similar(
    app: App,
    time: str | None, k: int, before_only: bool, start: str | None, end: str | None, apart: int, symbol: str | None, model_id: str | None, exact: bool,
    plot: Path | None, form: str,
) -> None:  # fmt: skip
    """Find the slices most similar to that of TIME (by default the newest), and show what came after them."""
    from btc_assets.signals.search.similar import find_similar_slices, read_active_model, read_newest_slice

    within = _within(start, end)
    with app.store.connect() as connection:
        query = parse_time(time) if time else read_newest_slice(connection, model_id or read_active_model(connection, symbol))
        found = find_similar_slices(
            connection, query, k, before_only=before_only, within=within, apart=timedelta(minutes=apart), symbol=symbol, model_id=model_id,
            exact=exact,
        )  # fmt: skip
        if not found:
            raise UserError("No other slice is embedded in that range: widen it, or load more (btc-assets load).")
        if form == "table":
            out.print(f"Like {query:{KEY_FORMAT}}:")
            out.print(_neighbor_table(found))
        else:
            print_rows(form, _NEIGHBOR_COLUMNS, map(_neighbor_values, found))
        if plot:
            from btc_assets.landing.generated import holds_generated
            from btc_assets.signals.search.plot import plot_slices, read_slice_pictures

            asked = floor_slice(query)
            generated = holds_generated(connection, found[0].symbol, Window.of_slice(asked))
            save_picture(plot, plot_slices(read_slice_pictures(connection, asked, found), generated=generated))
            (out if form == "table" else err).print(f"Saved their candles to {plot}.")


def _within(start: str | None, end: str | None) -> Window | None:
    if not start and not end:
        return None
    return Window.covering(parse_time(start or _FIRST_BITCOIN_DAY), parse_time(end) if end else floor_slice(datetime.now(UTC)) + SLICE)


_NEIGHBOR_COLUMNS: Columns = {
    "bucket_5m": "time", "symbol": "text", "distance": "number", "tick_count": "integer", "next_return": "number",
    "next_realized_volatility": "number", "next_volume": "number", "next_trade_count": "integer",
}  # fmt: skip


def _neighbor_values(one: Neighbor) -> tuple[object, ...]:
    labels = one.label_snapshot or {}
    return one.bucket_5m, one.symbol, one.distance, one.tick_count, *(labels.get(name) for name in list(_NEIGHBOR_COLUMNS)[4:])


def _neighbor_table(found: list[Neighbor]) -> Table:
    table = Table(
        "slice",
        "distance",
        "ticks",
        "return",
        "volatility",
        "volume",
        "trades",
        title="The four columns on the right describe the next slice",
    )
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for one in found:
        table.add_row(f"{one.bucket_5m:{KEY_FORMAT}}", f"{one.distance:.4f}", f"{one.tick_count:,}", *_labels(one.label_snapshot))
    return table


def _labels(labels: dict[str, float] | None) -> tuple[str, str, str, str]:
    if labels is None:
        return "", "", "", ""
    return (
        f"{labels['next_return']:+.2%}", f"{labels['next_realized_volatility']:.2%}", f"{labels['next_volume']:,.1f}",
        f"{labels['next_trade_count']:,}",
    )  # fmt: skip


@click.command(epilog=example("btc-assets evaluate --from 2024-01-01 --to 2024-03-01 --plot evaluation.png"))
@range_options
@click.option("--symbol", help="Label of the feed; needed if there are several.")
@click.option(
    "--model",
    "model_ids",
    multiple=True,
    help="A model to evaluate; repeat for more. By default, one is trained on the slices before the queries.",
)
@_kind_option("Kind of the model trained by default")
@click.option(
    "--generated",
    type=click.IntRange(min=3),
    metavar="DAYS",
    help="Evaluate it on a generated market of this many days, whose regimes are known.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@_device_option
@plot_option("Also save a picture")
@format_option()
@part_option("methods", "robustness", "notes")
@pass_app
def evaluate(
    app: App,
    start: str | None, end: str | None, symbol: str | None, model_ids: tuple[str, ...], kind: str, generated: int | None, seed: int,
    device: str | None, plot: Path | None, form: str, part: str | None,
) -> None:  # fmt: skip
    """Compare forecasts of the next slice from similar slices with simpler forecasts, without looking ahead."""
    from btc_assets.signals.encoders.torch_extra import require_torch

    first, last = parse_past_time(start), _time(end)
    require_torch()  # whatever is evaluated, an untrained `tcn` is compared with it
    from rich.markdown import Markdown

    from btc_assets.signals.encoders.kinds import Kinds
    from btc_assets.signals.encoders.models import read_model
    from btc_assets.signals.evaluation.evaluate_encoders import EvaluationPlan, evaluate_generated, evaluate_stored, read_newest_window

    kinds, name = Kinds.of(app.settings).with_class(kind)
    with progress_bar("evaluating") as advance:
        if generated:
            result = evaluate_generated(days=generated, kind=name, seed=seed, device=device, kinds=kinds, progress=advance)
        else:
            label = app.settings.landing_feeds.by_label(symbol).label
            with app.store.connect() as connection:
                window = read_newest_window(connection, label, first, last)
                trained = [read_model(connection, model_id) for model_id in model_ids]
            plan = EvaluationPlan(label, window, trained, name, seed, device, kinds)
            result = evaluate_stored(app.store, app.landing.models(), plan, progress=advance)
    if form == "table" and part is None:
        out.print(Markdown(result.to_markdown()) if out.is_terminal else lines(result.to_markdown()))
    else:
        _print_evaluation(form, part or "methods", result)
    if plot:
        save_picture(plot, result.plot())
        (out if form == "table" else err).print(f"Saved a picture to {plot}.")


def _print_evaluation(form: str, part: str, result: Evaluation) -> None:
    match part:
        case "methods":
            measures = [*result.rows[0].r2, "qlike", "auc", "gain", "precision"] if result.rows else []
            columns: dict[str, Kind] = {"method": "text"}
            for name in measures:
                columns |= {name: "number", f"{name}_error": "number"}
            print_rows(form, columns | {"effective_rank": "number", "forecasts": "integer"}, map(_method_values, result.rows))
        case "robustness":
            rates = (
                (name, disturbance, found.at_1, found.at_10)
                for name, robustness in result.robustness.items()
                for disturbance, found in robustness.rates.items()
            )
            print_rows(form, {"method": "text", "disturbance": "text", "at_1": "number", "at_10": "number"}, rates)
        case _:
            notes = [(note, False) for note in result.notes] + [(alarm, True) for alarm in result.alarms]
            print_rows(form, {"note": "text", "alarm": "flag"}, notes)


def _method_values(row: Row) -> list[object]:
    """As in `_print_evaluation`; what could not be estimated is not known."""
    estimates = [*row.r2.values(), row.qlike, row.auc, row.gain, row.precision]
    values = [number for estimate in estimates for number in (estimate.value, estimate.error)]
    return [row.name, *(None if number != number else number for number in (*values, row.effective_rank)), row.forecasts]


def _time(text: str | None) -> datetime | None:
    return parse_time(text) if text else None
