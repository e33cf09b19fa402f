"""The result of an evaluation, as a table and as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from btc_assets.signals.evaluation.metrics import UNKNOWN, Estimate
from btc_assets.signals.evaluation.robustness import Robustness

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The targets measured by R2, and their titles.
LEVELS = {"log_realized_variance": "log realized variance", "log_volume": "log volume", "log_trade_count": "log trade count"}

_BASELINE, _EMBEDDING, _LOWEST = "#9e9e9e", "#2b6cb0", -0.5


@dataclass(frozen=True)
class Row:
    """The results of one method.

    Attributes:
        name: of the method.
        r2: out of sample, for each of `LEVELS`.
        qlike: of the realized variance; less is better, 0 is perfect.
        auc: of the sign of the next return.
        forecasts: queries for which the method itself has a forecast.
        gain: R2 of the log realized variance that the forecast from neighbors adds to HAR, if the method has neighbors.
        precision: share of neighbors in the regime of the query, if the method has neighbors and regimes are known.
        effective_rank: of the embedding, if the method is one.
    """

    name: str
    r2: Mapping[str, Estimate]
    qlike: Estimate
    auc: Estimate
    forecasts: int
    gain: Estimate = UNKNOWN
    precision: Estimate = UNKNOWN
    effective_rank: float = float("nan")


@dataclass(frozen=True)
class Evaluation:
    """The rows of the table, notes on how to read them, and the signs of leakage, if any.

    Attributes:
        rows: one per method.
        k: neighbors of a query.
        notes: sentences that qualify the table.
        alarms: sentences, one for each sign of leakage.
        robustness: of each embedding, by its name; empty if it was not measured.
        questions: how many there were, and when.
        market: whose slices these are; empty if nobody said.
    """

    rows: Sequence[Row]
    k: int
    notes: Sequence[str]
    alarms: Sequence[str]
    robustness: Mapping[str, Robustness] = field(default_factory=dict)
    questions: str = ""
    market: str = ""

    def row(self, name: str) -> Row:
        """The row of a method."""
        return next(row for row in self.rows if row.name == name)

    def to_markdown(self) -> str:
        """The tables, notes and alarms as Markdown."""
        head = ["method", "R2 variance", "R2 volume", "R2 trades", "QLIKE", "AUC of sign", "adds to HAR", f"regime precision@{self.k}", "effective rank", "forecasts"]  # fmt: skip
        lines = [
            [row.name, *map(str, row.r2.values()), str(row.qlike), str(row.auc), str(row.gain), str(row.precision), _format_number(row.effective_rank), str(row.forecasts)]
            for row in self.rows
        ]  # fmt: skip
        parts = [_format_table(head, lines)]
        if self.robustness:
            names = list(next(iter(self.robustness.values())).rates)
            parts.append(
                _format_table(
                    ["finds itself again, @1 / @10", *names],
                    [[name, *map(str, found.rates.values())] for name, found in self.robustness.items()],
                )
            )
        parts.append("\n".join(f"* {note}" for note in self.notes))
        parts.append("\n".join(f"* **Alarm:** {alarm}" for alarm in self.alarms) or "No sign of leakage.")
        return "\n\n".join(parts) + "\n"

    def plot(self) -> bytes:
        """A PNG that shows each R2 as a bar with its standard error."""
        buffer = io.BytesIO()
        self.figure().savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()

    def figure(self) -> Figure:
        """That picture as a figure of matplotlib."""
        return _draw_rows(self.rows, ", ".join(filter(None, (self.market, self.questions))))


def _format_number(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "-"


def _format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _draw_rows(rows: Sequence[Row], title: str) -> Figure:
    """Draw R2 with one standard error to each side: one panel per target, one bar per method, embeddings in blue.

    Bars are cut at -0.5, and those that are lower end in an arrow; each is labeled with its value.
    """
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    figure = Figure(figsize=(12, 1.6 + 0.42 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(LEVELS), sharey=True)
    at = np.arange(len(rows))
    for axes, (target, name) in zip(panels, LEVELS.items(), strict=True):
        values = np.array([row.r2[target].value for row in rows])
        shown = values > _LOWEST
        errors = np.where(shown, [row.r2[target].error for row in rows], 0.0)
        seen = np.clip(np.nan_to_num(values), _LOWEST, None)
        axes.barh(at, seen, color=[_EMBEDDING if np.isfinite(row.effective_rank) else _BASELINE for row in rows])
        axes.errorbar(seen[shown], at[shown], xerr=errors[shown], fmt="none", ecolor="black", elinewidth=1, capsize=2)
        for y, value, end in zip(at, values, np.maximum(seen, 0) + errors, strict=True):
            axes.annotate(
                f"{value:.3f}" if np.isfinite(value) else "unknown", (end, y), (4, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(f"next slice's {name}", fontsize=10)
        axes.set_xlabel("R2 out of sample")
        lowest, highest = min((seen - errors).min(), 0), max((seen + errors).max(), 0.1)
        axes.set_xlim(lowest - 0.03 * (highest - lowest), highest + 0.25 * (highest - lowest))
        cut = values < _LOWEST
        axes.scatter(seen[cut], at[cut], marker="<", color="black", s=20)
        axes.grid(axis="x", alpha=0.25)
    figure.suptitle(title, fontsize=11)
    panels[0].set_yticks(at, [row.name for row in rows])
    panels[0].invert_yaxis()
    return figure
