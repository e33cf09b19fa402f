"""What an evaluation found, as a table and as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from btc_assets.signals.evaluation.metrics import UNKNOWN, Estimate
from btc_assets.signals.evaluation.robustness import Retrieval

# The targets judged by R2, and their titles.
LEVELS = {"log_realized_variance": "log realised variance", "log_volume": "log volume", "log_trade_count": "log trade count"}

_BASELINE, _EMBEDDING, _LOWEST = "#9e9e9e", "#2b6cb0", -0.5


@dataclass(frozen=True)
class Row:
    """What came out for one method.

    Args:
        name: of the method.
        r2: out of sample, for each of `LEVELS`.
        qlike: of the realised variance; less is better, 0 is perfect.
        auc: of the sign of the next return.
        gain: R2 of the log realised variance that the neighbours' forecast adds to HAR, if the method has neighbours.
        precision: share of neighbours of the query's own regime, if it has neighbours and regimes are known.
        effective_rank: of the embedding, if it is one.
        forecasts: queries with a forecast of its own.
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
    """The table, what has to be known to read it, and the signs of leakage, if any."""

    rows: Sequence[Row]
    k: int
    notes: Sequence[str]
    alarms: Sequence[str]
    retrieval: Mapping[str, Retrieval] = field(default_factory=dict)

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def to_markdown(self) -> str:
        """The tables, notes and alarms as Markdown."""
        head = ["method", "R2 variance", "R2 volume", "R2 trades", "QLIKE", "AUC of sign", "adds to HAR", f"regime precision@{self.k}", "effective rank", "forecasts"]  # fmt: skip
        lines = [
            [row.name, *map(str, row.r2.values()), str(row.qlike), str(row.auc), str(row.gain), str(row.precision), _number(row.effective_rank), str(row.forecasts)]
            for row in self.rows
        ]  # fmt: skip
        parts = [_table(head, lines)]
        if self.retrieval:
            names = list(next(iter(self.retrieval.values())).rates)
            parts.append(
                _table(
                    ["finds itself again, @1 / @10", *names],
                    [[name, *map(str, found.rates.values())] for name, found in self.retrieval.items()],
                )
            )
        parts.append("\n".join(f"* {note}" for note in self.notes))
        parts.append("\n".join(f"* **Alarm:** {alarm}" for alarm in self.alarms) or "No sign of leakage.")
        return "\n\n".join(parts) + "\n"

    def plot(self) -> bytes:
        """The R2s as bars with their standard errors: a PNG."""
        return _plot(self.rows)


def _number(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "-"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _plot(rows: Sequence[Row]) -> bytes:
    """Draw R2 with one standard error to each side: one panel a target, one bar a method, embeddings in blue.

    Bars below -0.5 are cut there; each bar bears its figure.
    """
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    figure = Figure(figsize=(12, 1.6 + 0.42 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(LEVELS), sharey=True)
    at = np.arange(len(rows))
    for axes, (target, title) in zip(panels, LEVELS.items(), strict=True):
        values = np.array([row.r2[target].value for row in rows])
        shown = values > _LOWEST
        errors = np.where(shown, [row.r2[target].error for row in rows], 0.0)
        seen = np.clip(np.nan_to_num(values), _LOWEST, None)
        axes.barh(at, seen, color=[_EMBEDDING if np.isfinite(row.effective_rank) else _BASELINE for row in rows])
        axes.errorbar(seen[shown], at[shown], xerr=errors[shown], fmt="none", ecolor="black", elinewidth=1, capsize=2)
        for y, value, end in zip(at, values, np.maximum(seen, 0) + errors, strict=True):
            axes.annotate(f"{value:.3f}", (end, y), (4, 0), textcoords="offset points", va="center", fontsize=8)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(f"next slice's {title}", fontsize=10)
        axes.set_xlabel("R2 out of sample")
        axes.set_xlim(min((seen - errors).min(), 0) - 0.05, max((seen + errors).max(), 0.1) * 1.25)
        axes.grid(axis="x", alpha=0.25)
    panels[0].set_yticks(at, [row.name for row in rows])
    panels[0].invert_yaxis()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
