"""Kept for `dagster.yaml` files that name it; see `btc_assets.orchestration.launcher`."""

from btc_assets.orchestration.launcher import StoreRunLauncher as StoreRunLauncher
