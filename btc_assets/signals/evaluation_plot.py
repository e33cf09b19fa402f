"""The evaluation's R2s as a bar chart, as a PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from btc_assets.signals.evaluation import Row

_TITLES = {"log_realized_variance": "log realised variance", "log_volume": "log volume", "log_trade_count": "log trade count"}
_BASELINE, _EMBEDDING, _LOWEST = "#9e9e9e", "#2b6cb0", -0.5


def plot_rows(rows: Sequence[Row]) -> bytes:
    """Draw R2 with one standard error to each side: one panel a target, one bar a method, embeddings in blue.

    Bars below -0.5 are cut there; each bar bears its figure.
    """
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    figure = Figure(figsize=(12, 1.6 + 0.42 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(_TITLES), sharey=True)
    at = np.arange(len(rows))
    for axes, (target, title) in zip(panels, _TITLES.items(), strict=True):
        values = np.array([row.r2[target].value for row in rows])
        errors = np.array([row.r2[target].error for row in rows])
        seen = np.clip(np.nan_to_num(values), _LOWEST, None)
        axes.barh(at, seen, color=[_EMBEDDING if np.isfinite(row.effective_rank) else _BASELINE for row in rows])
        shown = values > _LOWEST
        axes.errorbar(seen[shown], at[shown], xerr=errors[shown], fmt="none", ecolor="black", elinewidth=1, capsize=2)
        for y, value, end in zip(at, values, np.maximum(seen, 0) + np.nan_to_num(errors) * shown, strict=True):
            axes.annotate(f"{value:.3f}", (end, y), (4, 0), textcoords="offset points", va="center", fontsize=8)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(f"next slice's {title}", fontsize=10)
        axes.set_xlabel("R2 out of sample")
        axes.set_xlim(min(seen.min() - 0.05, -0.05), max(seen.max() + np.nanmax(errors), 0.1) * 1.25)
        axes.grid(axis="x", alpha=0.25)
    panels[0].set_yticks(at, [row.name for row in rows])
    panels[0].invert_yaxis()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
