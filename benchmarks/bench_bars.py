"""Bars on every clock: ticks a second on one core, of a generated day in batches as the store gives them; medians of repetitions.

Counted in processor time, which a busy machine hardly changes.
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime

import pyarrow as pa
from figures import Figure, parse, record
from rich.console import Console
from rich.table import Table

from btc_assets.market_data.clock_bars.bars import ClockBars
from btc_assets.market_data.clock_bars.sizes import ADAPTIVE, CLOCKS
from btc_assets.simulation.generate_day import generate_day

BATCH = 1 << 16
GOAL, GOAL_ADAPTIVE = 2_000_000, 500_000  # ticks a second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticks", type=int, default=3_000_000, help="ticks of the day")
    parser.add_argument("--trades", type=int, default=1000, help="trades of a bar, on average")
    parser.add_argument("--repetitions", type=int, default=3)
    args = parse(parser)

    ticks = pa.concat_tables(generate_day(datetime(2024, 1, 1, tzinfo=UTC), args.ticks))
    whole = ClockBars("tick", len(ticks)).add(ticks)
    bars = len(ticks) / args.trades
    sizes = {
        "tick": args.trades,
        "volume": f"{float(whole['volume'][0].as_py()) / bars:.8f}",
        "dollar": f"{float(whole['quote_volume'][0].as_py()) / bars:.2f}",
        "time": f"{max(round(86_400_000 / bars), 1)}ms",
    } | dict.fromkeys(ADAPTIVE, args.trades)
    shown = Table("clock", "size", "bars", "ticks/s", "goal", title=f"{len(ticks):,} ticks")
    found = []
    for clock in CLOCKS:
        rates, made = [], 0
        for _ in range(args.repetitions):
            start, clock_bars = time.process_time(), ClockBars(clock, sizes[clock])
            made = sum(len(clock_bars.add(batch)) for batch in ticks.to_batches(max_chunksize=BATCH))
            rates.append(len(ticks) / (time.process_time() - start))
        goal = GOAL_ADAPTIVE if clock in ADAPTIVE else GOAL
        found.append(Figure.of(f"bars on the clock {clock}", rates, "ticks/s", goal, "more"))
        shown.add_row(clock, str(sizes[clock]), f"{made:,}", f"{found[-1].value:,.0f}", f"{goal:,}")
    Console().print(shown)
    record(args, "bars", f"{len(ticks):,} ticks, bars of {args.trades:,}", found)


if __name__ == "__main__":
    main()
