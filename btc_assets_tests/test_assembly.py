"""Definitions are built from explicit settings: several may live in one process."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from btc_assets.assembly import HISTORY_ASSETS, LOADING_ASSETS, build_definitions
from btc_assets.domain.settings import Settings
from btc_assets.orchestration.failures import RETRIES
from btc_assets.store.database import Store

FIRST, SECOND = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)


def asset_keys(definitions: dg.Definitions) -> set[str]:
    return {spec.key.to_user_string() for spec in definitions.resolve_all_asset_specs()}


def job_names(definitions: dg.Definitions) -> set[str]:
    return {job.name for job in definitions.resolve_all_job_defs()}


def first_partition(definitions: dg.Definitions, key: str) -> str | None:
    (spec,) = (spec for spec in definitions.resolve_all_asset_specs() if spec.key.to_user_string() == key)
    assert spec.partitions_def is not None
    return spec.partitions_def.get_first_partition_key()


def test_two_definitions_with_different_settings_live_in_one_process() -> None:
    one = build_definitions(Settings(dsn="postgresql://one/btc", partitions_start=FIRST, history_start=FIRST))
    two = build_definitions(Settings(dsn="postgresql://two/btc", partitions_start=SECOND, candles_100ms=True, backup_stanza="btc"))
    assert first_partition(one, "market_data/btc_ticks") == "2024-01-01T00:00Z"
    assert first_partition(two, "market_data/btc_ticks") == "2024-02-01T00:00Z"
    assert asset_keys(two) - asset_keys(one) == {*HISTORY_ASSETS, "market_data/candles_100ms"}
    assert "watch_backups" in job_names(two) - job_names(one)
    dsns = [definitions.resources["store"].dsn for definitions in (one, two) if definitions.resources]
    assert dsns == ["postgresql://one/btc", "postgresql://two/btc"]


def test_building_definitions_does_not_connect() -> None:
    definitions = build_definitions(Settings(dsn="postgresql://127.0.0.1:1/btc", landing_url="s3://none"))
    dg.Definitions.validate_loadable(definitions)
    assert definitions.resources and isinstance(definitions.resources["store"], Store)


@pytest.mark.parametrize("patient", [True, False])
def test_steps_are_retried_unless_a_person_waits(patient: bool) -> None:
    definitions = build_definitions(Settings(dsn="postgresql://one/btc"), patient=patient)
    policies = {
        definitions.resolve_assets_def(dg.AssetKey(key.split("/"))).op.retry_policy for key in ("market_data/btc_ticks", *HISTORY_ASSETS)
    }
    assert policies == {RETRIES if patient else None}


def test_each_job_that_loads_has_the_assets_that_take_its_options() -> None:
    definitions = build_definitions(Settings(dsn="postgresql://one/btc", partitions_start=SECOND))
    for name, loading in LOADING_ASSETS.items():
        keys = {key.to_user_string() for key in definitions.resolve_job_def(name).asset_layer.executable_asset_keys}
        assert {loading.registry, loading.ticks} <= keys
