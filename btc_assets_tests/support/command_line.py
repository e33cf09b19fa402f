"""The command line in this process, as a person types it."""

from __future__ import annotations

from click.testing import CliRunner, Result

from btc_assets.cli.main import main


def run_command(*arguments: str) -> Result:
    """Run `btc-assets` with these arguments, in a terminal of 200 columns."""
    return CliRunner().invoke(main, list(arguments), env={"COLUMNS": "200"})
