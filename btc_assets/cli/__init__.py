"""The command line, `btc-assets`: one module for each group of commands. Parses and prints; what is done lies in the rooms."""

from btc_assets.cli.main import main

__all__ = ["main"]
