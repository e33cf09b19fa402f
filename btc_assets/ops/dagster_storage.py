"""Kept for `dagster.yaml` files that name it; see `btc_assets.orchestration.storage`."""

from btc_assets.orchestration.storage import StoreComputeLogs as StoreComputeLogs
from btc_assets.orchestration.storage import StoreStorage as StoreStorage
