"""The command line `btc-assets`: one module for each command or group of commands. They parse and print; the work is done by the rooms."""

from btc_assets.cli.main import run as main

__all__ = ["main"]
