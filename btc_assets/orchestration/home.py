"""DAGSTER_HOME: the directory of the instance that the command line, the webserver, the daemon and workers share."""

from __future__ import annotations

import os
from pathlib import Path

from btc_assets.domain.settings import Settings

DAGSTER_YAML = Path(__file__).with_name("dagster.yaml")


def prepare_dagster_home(settings: Settings) -> Path:
    """Create DAGSTER_HOME (by default `dagster` in `BTC_ASSETS_HOME`) with our dagster.yaml unless it has one, set the variable and return it."""
    home = Path(os.environ.get("DAGSTER_HOME") or settings.home / "dagster")
    home.mkdir(parents=True, exist_ok=True)
    file = home / "dagster.yaml"
    if not file.exists():
        file.write_bytes(DAGSTER_YAML.read_bytes())
    os.environ["DAGSTER_HOME"] = str(home)
    return home
