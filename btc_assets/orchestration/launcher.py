"""Which processes execute Dagster's runs: those of this machine, or workers on several machines."""

from __future__ import annotations

from typing import Any

from dagster import DefaultRunLauncher

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import load_settings
from btc_assets.orchestration.dagster_private import ConfigurableClass, ConfigurableClassData, RunLauncher


class StoreRunLauncher(RunLauncher, ConfigurableClass):
    """Chooses Celery's workers if `BTC_ASSETS_WORKERS_BROKER` names their broker, else child processes of the code location.

    `dagster.yaml` names this class, as it does those of the storage: no address or password is written to a file or sent to a worker.
    """

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """No options: the settings have the broker."""
        return {}

    @classmethod
    def from_config_value(  # type: ignore[override]  # it chooses a launcher, and returns none of its own class
        cls, inst_data: ConfigurableClassData | None, config_value: object
    ) -> RunLauncher:
        """Make the launcher that this process's settings ask for."""
        broker = load_settings().workers_broker
        if broker is None:
            return DefaultRunLauncher(inst_data=inst_data)
        try:
            from btc_assets.orchestration.workers import WorkersRunLauncher
        except ModuleNotFoundError as error:
            raise UserError(
                f"BTC_ASSETS_WORKERS_BROKER is set, and {error.name} is not installed: pip install 'btc-assets[workers]', or unset it."
            ) from None
        return WorkersRunLauncher(broker.get_secret_value(), inst_data)
