"""Settings from environment variables with the prefix `BTC_ASSETS_`, validated at start."""

from __future__ import annotations

import difflib
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from dotenv import dotenv_values, load_dotenv
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from btc_assets.domain.dsn import find_broker_fault, find_fault
from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import floor_day, floor_slice, parse_time

PREFIX = "BTC_ASSETS_"
DEMO_ENV = "demo.env"  # in `home`; what `btc-assets demo` leaves for `make dev`
_ENV_FILE = Path(".env")
START_FILE = "partitions_start"  # in `home`; holds the start of the partitions where no variable does
_NOT_SETTINGS = {"BTC_ASSETS_TEST_DSN"}  # read by the test suite alone

KIND = r"(?![a-z0-9-]{25})[a-z][a-z0-9]*(-[a-z0-9]+)*"
"""A name of a kind of encoder: model ids begin with it."""

CLASS_PATH = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"
"""A class as `package.module:Class`."""

# A setting of these says which store is meant: what the last demo left would mix its own store with that one.
_NAME_A_STORE = tuple(
    PREFIX + name for name in ("DSN", "OWNER_DSN", "DAGSTER_DSN", "DATABASE", "LANDING_URL", "LANDING_FEEDS", "S3_ENDPOINT", "MODELS_URL")
)


class Settings(BaseSettings):
    """Everything that differs between two installations.

    `docs/settings.md` is generated from these fields: `description` says what a setting means, `examples` what else or
    in which form it may be given. A path like docs/workers.md in a description becomes a link.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", env_ignore_empty=True, frozen=True, validate_default=True, arbitrary_types_allowed=True,
        hide_input_in_errors=True,  # it may be a password
    )  # fmt: skip

    home: Path = Field(
        Path(".btc_assets"),
        description="Directory of the embedded server, the default landing zone and Dagster's home. Keep the path short.",
    )
    dsn: SecretStr | None = Field(
        None,
        examples=["postgresql://user@host:5432/database"],
        description="The store's PostgreSQL, in any form that `psql` takes. If it is not set, the embedded server in `BTC_ASSETS_HOME` is used.",
    )
    owner_dsn: SecretStr | None = Field(
        None,
        examples=["postgresql://owner@host:5432/database"],
        description="The same database as the role that owns the tables: migrations, policies, candles and indexes (docs/production.md#roles)."
        " If it is not set, `BTC_ASSETS_DSN` is used.",
    )
    dagster_dsn: SecretStr | None = Field(
        None,
        examples=["postgresql://user@host:5432/dagster"],
        description="Where Dagster keeps its own tables (schema `dagster`). If it is not set, they are in the store's database.",
    )
    dagster_events_days: int | None = Field(
        90,
        ge=1,
        examples=["never"],
        description="Events of Dagster's runs that are older than this many days are deleted; events of assets are kept. `never` keeps all.",
    )
    compute_logs_url: str | None = Field(
        None,
        pattern=r"^s3://[^/]+",
        examples=["s3://bucket/prefix"],
        description="Where the output of steps is stored. If it is not set, in Dagster's home.",
    )
    database: str = Field(
        "btc_assets",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="Name of the database on the embedded server: lower-case letters, digits and `_`.",
    )
    landing_url: str | None = Field(
        None,
        examples=["s3://bucket/prefix", "file:///directory"],
        description="The landing zone. If it is not set, the directory `landing` in `BTC_ASSETS_HOME` is used.",
    )
    landing_feeds: Annotated[Feeds, NoDecode] = Field(
        Feeds.parse("Binance/BTCUSDT"),
        examples=["prefix=SYMBOL:LABEL, ..."],
        description="What lands where, and what the store calls it: comma-separated feeds, each with its prefix in the landing zone, the"
        " symbol in its trades, and the label in the tables. Symbol and label default to the last part of the prefix. Options follow after"
        " semicolons: `;market=um`, `spot` or `cm` (inverse contracts), and `;ids=gaps` if the exchange skips trade ids (default for `um`"
        " and `cm`).",
    )
    landing_margin_minutes: int = Field(
        5, ge=1, le=1440, description="How far the folder of an object may lie from the event times in the object."
    )
    landing_lookback_minutes: int = Field(
        120, ge=5, le=7 * 1440, description="How far before the newest folder the sensor still looks for objects."
    )
    landing_grace_seconds: int = Field(
        90, ge=0, le=3600, description="How long after its end a slice stays open for objects. Then it is closed and loaded."
    )
    live_seconds: int | None = Field(
        None,
        ge=1,
        le=300,
        examples=["5"],
        description="How often the slice that is still open is loaded, so that its candles are not older than that and a few seconds"
        " (docs/automation.md#the-open-slice). If it is not set, a slice is loaded when it is closed.",
    )
    landing_events_queue: str | None = Field(
        None,
        pattern=r"^https?://",
        examples=["https://sqs.REGION.amazonaws.com/ACCOUNT/NAME"],
        description="An SQS queue that S3 sends its events to. It wakes the sensor up earlier and is never needed (docs/automation.md#s3-events).",
    )
    landing_etag: str = Field(
        "md5",
        pattern="^(md5|opaque)$",
        examples=["md5", "opaque"],
        description="What the ETags of the landing zone are. Set `opaque` for a bucket with SSE-KMS, whose ETags are not MD5 sums.",
    )
    s3_endpoint: str | None = Field(
        None, examples=["https://host:port"], description="An S3-compatible server. If it is not set, AWS is used."
    )
    s3_region: str | None = Field(
        None, description="Region of the bucket, such as `eu-central-1`. If it is not set, the region of the AWS configuration is used."
    )
    partitions_start: datetime | None = Field(
        None,
        examples=["2024-01-01", "2024-01-01T00:05Z"],
        description="Start of the 5-minute partitions. If it is not set, the one recorded in `BTC_ASSETS_HOME` counts: the start of the month"
        " before the one in which the store was first used, or to which `btc-assets ops move-start` moved it (docs/production.md#dagster). With"
        " one or two months of partitions, asset pages load in less than 2 s (docs/benchmarks.md); Dagster recommends fewer than 100,000.",
    )
    history_start: datetime = Field(
        datetime(2017, 8, 17, tzinfo=UTC),
        examples=["2017-08-17"],
        description="First day that the store holds. Daily partitions run from here to the 5-minute partitions, and `reconcile_weekly` loads"
        " everything in the landing zone from here on.",
    )
    sensor_slices_per_run: int = Field(288, ge=1, le=8640, description="Most slices in one run that a sensor requests.")
    sensor_runs_in_flight: int = Field(2, ge=1, description="Most runs of one sensor at the same time.")
    backfill_slices_per_run: int | None = Field(
        None,
        ge=1,
        description="Slices in one run of a backfill. If it is not set, one run loads the whole range (2,016 slices a run with `btc-assets dev`).",
    )
    workers_broker: SecretStr | None = Field(
        None,
        examples=["redis://host:6379/0", "rediss://host:6379/0"],
        description="A Redis server. If it is set, Celery workers execute the runs, on as many machines as you like (docs/workers.md).",
    )
    spare_processes: int = Field(
        1,
        ge=0,
        le=8,
        description="Processes of the code location that are ready for a run, which then starts in a fraction of a second. Each holds about"
        " 200 MB (docs/production.md#dagster). 0 starts each run's process when it is needed.",
    )
    ui_hosts: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(),
        examples=["dagster.example.com, ..."],
        description="Comma-separated names under which the Dagster UI may be reached, besides localhost, such as that of a reverse proxy"
        " (docs/production.md#dagster).",
    )
    fetch_concurrency: int = Field(16, ge=1, le=256, description="Objects read at the same time.")
    commit_rows: int = Field(
        32_768, ge=1, description="About how many rows are prepared and committed together. Memory grows with this number."
    )
    writers: int = Field(2, ge=1, le=32, description="Commits that a run writes at the same time, each in a session of its own.")
    candles_100ms: bool = Field(False, description="Also keep candles of 100 ms.")
    ticks_drop_after_days: int | None = Field(
        90,
        ge=1,
        examples=["never"],
        description="Ticks older than this many days are dropped once their candles and features exist. `never` keeps them.",
    )
    models_url: str | None = Field(
        None,
        examples=["s3://bucket/prefix", "file:///directory"],
        description="Where encoders are stored, below `models/`. If it is not set, in the landing zone.",
    )
    encoders: str | None = Field(
        None,
        examples=["mean-spread=my_encoders.mean:MeanSpread"],
        description="Classes of encoders that this process may import, besides those that installed packages declare, with commas"
        " in between (docs/signals.md#encoders-of-your-own).",
    )
    backup_stanza: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        description="pgBackRest's stanza of the server, such as `btc`. If it is set, the check `restorable` runs (docs/backups.md).",
    )
    pgbackrest: str = Field("pgbackrest", description="Command that runs pgBackRest, such as `sudo -n -u postgres pgbackrest`.")

    @field_validator("landing_feeds", mode="before")
    @classmethod
    def _feeds(cls, text: object) -> object:
        return Feeds.parse(text) if isinstance(text, str) else text

    @field_validator("ui_hosts", mode="before")
    @classmethod
    def _hosts(cls, text: object) -> object:
        return frozenset(name for part in text.split(",") if (name := part.strip().lower())) if isinstance(text, str) else text

    @field_validator("partitions_start", mode="before")
    @classmethod
    def _start(cls, text: object) -> object:
        try:
            time = parse_time(text) if isinstance(text, str) else text
        except UserError as error:
            raise ValueError(str(error)) from None
        if isinstance(time, datetime) and floor_slice(time) != time:
            raise ValueError("it must be the start of a 5-minute slice, such as 2024-01-01 or 2024-01-01T00:05Z")
        return time

    @field_validator("history_start", mode="before")
    @classmethod
    def _history(cls, text: object) -> object:
        time = cls._start(text)
        if isinstance(time, datetime) and floor_day(time) != time:
            raise ValueError("it must be a day, such as 2017-08-17")
        return time

    @field_validator("ticks_drop_after_days", "dagster_events_days", mode="before")
    @classmethod
    def _days_or_never(cls, days: object) -> object:
        return None if days == "never" else days

    @field_validator("dsn", "owner_dsn", "dagster_dsn")
    @classmethod
    def _dsn(cls, dsn: SecretStr | None) -> SecretStr | None:
        if dsn is not None and (fault := find_fault(dsn.get_secret_value())):
            raise ValueError(fault)
        return dsn

    @field_validator("workers_broker")
    @classmethod
    def _broker(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and (fault := find_broker_fault(url.get_secret_value())):
            raise ValueError(fault)
        return url

    @field_validator("landing_url", "models_url")
    @classmethod
    def _object_store(cls, url: str | None) -> str | None:
        if url is not None and urlsplit(url).scheme not in ("s3", "file", "memory"):
            raise ValueError("it must be s3://bucket/prefix or file:///directory")
        return url

    @field_validator("encoders")
    @classmethod
    def _encoders(cls, encoders: str | None) -> str | None:
        for text in (encoders or "").split(","):
            if text.strip() and not re.fullmatch(f"{KIND} *= *{CLASS_PATH}", text.strip()):
                raise ValueError(f"{text.strip()!r} is no kind=package.module:Class")
        return encoders

    @field_validator("home")
    @classmethod
    def _home(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @property
    def landing(self) -> str:
        """URL of the landing zone; a directory in `home` unless it is set."""
        return self.landing_url or (self.home / "landing").as_uri()

    @property
    def encoder_classes(self) -> dict[str, str]:
        """The classes of `encoders`, as `package.module:Class`, by kind."""
        pairs = (text.split("=") for text in (self.encoders or "").split(",") if text.strip())
        return {kind.strip(): where.strip() for kind, where in pairs}

    @property
    def landing_margin(self) -> timedelta:
        return timedelta(minutes=self.landing_margin_minutes)

    @property
    def landing_lookback(self) -> timedelta:
        return timedelta(minutes=self.landing_lookback_minutes)

    @property
    def landing_grace(self) -> timedelta:
        return timedelta(seconds=self.landing_grace_seconds)

    @property
    def first_slice(self) -> datetime:
        """Where the 5-minute partitions start.

        For a store that was never used, `default_start`. From then on the recorded start counts (`record_start`), because one that
        followed the calendar would end backfills in progress and refuse runs that were requested before.
        """
        return self.partitions_start or default_start(datetime.now(UTC))


def default_start(now: datetime) -> datetime:
    """The first day of the previous month: at most 62 days, or 17,856 slices, with which the pages of an asset open within 2 s."""
    return floor_day((now.replace(day=1) - timedelta(days=1)).replace(day=1))


def load_settings() -> Settings:
    """Read the environment, then `.env`, or where neither there is one nor a variable names a store, what the last demo left in `home`.

    What the file holds goes into this process's environment, so that `AWS_*` variables in it reach the S3 clients
    and child processes see the same store.

    Raises:
        UserError: one sentence naming each variable whose value is wrong or that does not exist.
    """
    if _ENV_FILE.exists():
        load_dotenv(_ENV_FILE, override=False)
    elif not any(map(os.environ.get, _NAME_A_STORE)):
        load_dotenv(read_home() / DEMO_ENV, override=False, interpolate=False)
    known = {PREFIX + name.upper() for name in Settings.model_fields} | _NOT_SETTINGS
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and os.environ[name] and name not in known:
            raise UserError(_unknown(name, known))
    try:
        return Settings.model_validate(_recorded_start())
    except ValidationError as error:
        raise UserError(" ".join(map(_sentence, error.errors(include_input=False)))) from None


def _recorded_start() -> dict[str, str]:
    """The recorded start of the partitions, unless a variable names one."""
    try:
        return {} if os.environ.get(PREFIX + "PARTITIONS_START") else {"partitions_start": (read_home() / START_FILE).read_text().strip()}
    except OSError:
        return {}  # nothing is recorded


def read_home() -> Path:
    """`BTC_ASSETS_HOME` of the environment or `.env`, whatever the other settings are."""
    text = os.environ.get(PREFIX + "HOME") or dotenv_values(_ENV_FILE).get(PREFIX + "HOME")
    return Path(text or Settings.model_fields["home"].default).expanduser().absolute()


def settings_files() -> list[Path]:
    """The files that settings may stand in, whether they exist or not."""
    return [_ENV_FILE.absolute(), read_home() / DEMO_ENV]


def leave_settings_out() -> None:
    """Make every setting of the environment and of `.env` count as not set, for this process and its children.

    Empty variables do that: neither `.env` nor a later reading of it replaces a variable that exists.
    """
    names = {PREFIX + name.upper() for name in Settings.model_fields} | os.environ.keys() | dotenv_values(_ENV_FILE).keys()
    os.environ.update({name: "" for name in names if name.startswith(PREFIX) and name not in _NOT_SETTINGS})


def _sentence(error: ErrorDetails) -> str:
    variable = PREFIX + str(error["loc"][0]).upper()
    return f"{variable} is wrong: {error['msg'].removeprefix('Value error, ').rstrip('.')}."


def _unknown(variable: str, known: set[str]) -> str:
    close = difflib.get_close_matches(variable.removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in known], n=1)
    hint = f"did you mean {PREFIX}{close[0]}?" if close else "see docs/settings.md."
    return f"{variable} is not a setting: {hint}"
