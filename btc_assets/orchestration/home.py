"""DAGSTER_HOME: the directory of the instance that the command line, the webserver, the daemon and workers share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings

DAGSTER_YAML = Path(__file__).with_name("dagster.yaml")

# The first line of our copy in DAGSTER_HOME. While the sum is that of the rest, nobody has edited the file.
_STAMP = "# btc-assets updates this file while it has this SHA-256: "

# Sums of the files that were written before there was a stamp.
_UNSTAMPED = {
    "44155c680dfb500ffd2036f9f2438871377b028d8e3a88baf0b247441df4e335",
    "b13a96ea7a33ba6221f4ae685850b98db461a37b29222d5c6db8d03946a19843",
    "5bc49fa9f8456f9aed88d25ebb3dcfbb35efcfa7e3923dbf93b206b247075b2b",
    "8e228b6064f85ddce02db57895a1bfb89503ef949c49685bd5a486370c786e43",
    "96712bd484132fc6f4be307c26026340811bb13b498ff84b0448bd3c3aa6c5cd",
}


def prepare_dagster_home(settings: Settings) -> Path:
    """Create DAGSTER_HOME (by default `dagster` in `BTC_ASSETS_HOME`), set the variable and return it.

    It gets our dagster.yaml. One that an earlier version wrote and nobody edited is updated; any other is left alone.

    Raises:
        UserError: it cannot be written.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or settings.home / "dagster")
    file, ours = home / "dagster.yaml", _stamped(DAGSTER_YAML.read_text())
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not file.exists() or (file.read_text() != ours and _is_unedited(file.read_text())):
            file.write_text(ours)
    except OSError as error:
        raise UserError(
            f"DAGSTER_HOME {home} cannot be written ({error.strerror}): set DAGSTER_HOME or BTC_ASSETS_HOME to a writable directory."
        ) from None
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def missing_options(home: Path) -> list[str]:
    """The options of our dagster.yaml that the edited one of a home does not mention, such as `run_monitoring.start_timeout_seconds`."""
    theirs, ours = (yaml.safe_load(file.read_text()) for file in (home / "dagster.yaml", DAGSTER_YAML))
    return sorted(_missing(theirs if isinstance(theirs, Mapping) else {}, ours))


def _missing(theirs: Mapping[str, object], ours: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    for name, value in ours.items():
        their = theirs.get(name)
        if name not in theirs:
            yield prefix + name
        elif isinstance(value, Mapping) and isinstance(their, Mapping):
            yield from _missing(their, value, f"{prefix}{name}.")


def _stamped(text: str) -> str:
    return f"{_STAMP}{_sum(text)}\n{text}"


def _is_unedited(text: str) -> bool:
    first, _, rest = text.partition("\n")
    return first == f"{_STAMP}{_sum(rest)}" if first.startswith(_STAMP) else _sum(text) in _UNSTAMPED


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
