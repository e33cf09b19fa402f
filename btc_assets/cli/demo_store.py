"""The demo's own corner of `BTC_ASSETS_HOME`, and `make dev` on top of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import DEMO_ENV, PREFIX, Settings, load_settings
from btc_assets.domain.slices import KEY_FORMAT


def use_demo(home: Path, name: str, start: datetime | None = None) -> Settings:
    """Point this process at the demo `name`, and once its partitions are known, every later process without a `.env`.

    A demo has an embedded database and a landing directory of its own, so that demos of several files or days keep apart
    and nothing of the user's is touched. The environment is set because Dagster's storage and child processes read it.

    Args:
        home: `BTC_ASSETS_HOME`.
        name: of the database and the directory.
        start: where its partitions start, once that is known.
    """
    landing = home / f"landing_{name}"
    landing.mkdir(parents=True, exist_ok=True)
    values = {"DATABASE": name, "LANDING_URL": landing.as_uri(), "TICKS_DROP_AFTER_DAYS": "never"}  # the file may be an old one
    if start is not None:
        values["PARTITIONS_START"] = start.strftime(KEY_FORMAT)
        lines = [f"{PREFIX}{key}={value}\n" for key, value in values.items()]
        (home / DEMO_ENV).write_text("# Written by the last `btc-assets demo`; used if there is no .env\n" + "".join(lines))
    for key in ("DSN", "DAGSTER_DSN", "S3_ENDPOINT", "S3_REGION"):
        os.environ.pop(PREFIX + key, None)
    os.environ.update({PREFIX + key: value for key, value in values.items()})
    return load_settings()


def dev_environment(settings: Settings) -> dict[str, str]:
    """What the webserver, the daemon and their runs must know of this process's settings."""
    paths = {f"{PREFIX}HOME": str(settings.home), "DAGSTER_HOME": str(Path(os.environ["DAGSTER_HOME"]).absolute())}
    # A week of slices a run: a person who backfills a year sees progress, and can stop and repeat it in parts.
    # VIRTUAL_ENV, because dg warns if it runs from another environment than the activated one.
    return {f"{PREFIX}BACKFILL_SLICES_PER_RUN": "2016"} | dict(os.environ) | paths | {"VIRTUAL_ENV": sys.prefix}


def run_dev(settings: Settings, port: int) -> int:
    """Run the webserver and the daemon with `dg dev` until they are stopped; returns its exit status.

    Raises:
        UserError: the package is not installed from a checkout, whose pyproject.toml tells `dg` what to serve.
    """
    project = Path(__file__).parents[2]
    if not (project / "pyproject.toml").exists():
        raise UserError("The development UI runs from a checkout: clone the project, or start dagster-webserver and dagster-daemon.")
    command = [str(Path(sys.executable).with_name("dg")), "dev", "--host", "127.0.0.1", "--port", str(port)]
    # A shell that starts a command in the background has it ignore this signal, and all that it starts; dg ends by it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, cwd=project, env=dev_environment(settings))
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # it got the same one, and shuts down in its own time
            continue
