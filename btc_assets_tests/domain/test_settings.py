"""Settings: a wrong value ends in one sentence that names the variable."""

from datetime import timedelta
from pathlib import Path

import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feed, Feeds
from btc_assets.domain.settings import Settings, default_start, load_settings
from btc_assets.domain.slices import SLICE, parse_time


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BTC_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BTC_ASSETS_PARTITIONS_START")


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("FETCH_CONCURRENCY", "many", "BTC_ASSETS_FETCH_CONCURRENCY is wrong: Input should be a valid integer, unable to parse string as an integer."),
        ("DSN", "mysql://db", "BTC_ASSETS_DSN is wrong: it must look like postgresql://user@host:5432/database."),
        ("LANDING_URL", "/data", "BTC_ASSETS_LANDING_URL is wrong: it must be s3://bucket/prefix or file:///directory."),
        ("WORKERS_BROKER", "amqp://mq", "BTC_ASSETS_WORKERS_BROKER is wrong: it must look like redis://host:6379/0, or rediss:// for TLS."),
        ("LANDING_FEEDS", "", None),
        ("LANDING_FEEDS", "a=b:c:d", "BTC_ASSETS_LANDING_FEEDS is wrong: 'a=b:c:d' must look like Binance/BTCUSDT=BTCUSDT:LABEL."),
        ("PARTITIONS_START", "soon", "BTC_ASSETS_PARTITIONS_START is wrong: 'soon' is not a date or time: write it as 2020-02-22 or 2020-02-22T13:35Z."),
        ("PARTITIONS_START", "2024-01-01T00:03Z", "BTC_ASSETS_PARTITIONS_START is wrong: it must be the start of a 5-minute slice, such as 2024-01-01 or 2024-01-01T00:05Z."),
        ("LANDNG_URL", "s3://b", "BTC_ASSETS_LANDNG_URL is not a setting: did you mean BTC_ASSETS_LANDING_URL?"),
        ("QQ", "1", "BTC_ASSETS_QQ is not a setting: see docs/settings.md."),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_sentence_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str | None
) -> None:
    monkeypatch.setenv(f"BTC_ASSETS_{variable}", value)
    if sentence is None:  # an empty variable is an unset one
        assert load_settings().landing_feeds == Feeds([Feed("Binance/BTCUSDT", "BTCUSDT", "BTCUSDT")])
        return
    with pytest.raises(UserError) as raised:
        load_settings()
    assert str(raised.value) == sentence


def test_a_password_is_in_no_message_and_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_DSN", "postgresql://loader:s3cret@db/btc")
    assert "s3cret" not in repr(load_settings())
    monkeypatch.setenv("BTC_ASSETS_DSN", "loader:s3cret@db/btc")
    with pytest.raises(UserError) as raised:
        load_settings()
    assert "s3cret" not in str(raised.value)


def test_the_environment_goes_before_the_env_file_and_that_before_the_last_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "demo.env").write_text("BTC_ASSETS_DATABASE=demo\n")
    monkeypatch.setenv("BTC_ASSETS_DATABASE", "")
    monkeypatch.delenv("BTC_ASSETS_DATABASE")
    with monkeypatch.context() as inner:
        inner.setenv("BTC_ASSETS_DATABASE", "own")
        assert load_settings().database == "own"
    assert load_settings().database == "demo"
    monkeypatch.delenv("BTC_ASSETS_DATABASE")
    (tmp_path / ".env").write_text("BTC_ASSETS_FETCH_CONCURRENCY=3\n")
    loaded = load_settings()
    assert (loaded.database, loaded.fetch_concurrency) == ("btc_assets", 3)
    monkeypatch.delenv("BTC_ASSETS_FETCH_CONCURRENCY")


@pytest.mark.parametrize(
    ("now", "start"),
    [("2024-03-01", "2024-02-01"), ("2024-03-31T23:59Z", "2024-02-01"), ("2024-01-15", "2023-12-01"), ("2024-08-31", "2024-07-01")],
)
def test_partitions_start_by_default_with_the_previous_month(now: str, start: str) -> None:
    assert default_start(parse_time(now)) == parse_time(start)
    assert timedelta(days=28) <= parse_time(now) - parse_time(start) <= 17_856 * SLICE


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
