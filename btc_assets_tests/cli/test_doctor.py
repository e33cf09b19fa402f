"""The command `doctor`, and what it finds about Dagster."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from btc_assets.cli.doctor import examine_dagster
from btc_assets.cli.main import main
from btc_assets.domain.errors import UserError
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets_tests.support.stores import StoreUnderTest


def test_the_command_prints_a_line_each_and_exits_with_1_if_there_is_a_problem(store: StoreUnderTest) -> None:
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    assert any(line.startswith("ok") and "server: PostgreSQL" in line for line in result.output.splitlines())
    store.landing.rmdir()
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert "is not a directory: create it, or set BTC_ASSETS_LANDING_URL" in result.output.replace("\n", " ")


def test_an_instance_that_does_not_open_is_a_problem(store: StoreUnderTest) -> None:
    home = prepare_dagster_home(store.settings)
    (home / "dagster.yaml").write_text("no_such_key: 1\n")
    with pytest.raises(UserError, match=rf"^The Dagster instance in {home} does not open \(.*\): correct its dagster.yaml\.$"):
        list(examine_dagster(store.settings))
