"""The code location that Dagster loads: the definitions of the store that this process's settings name."""

from btc_assets.assembly import build_definitions
from btc_assets.domain.settings import load_settings
from btc_assets.orchestration.partitions_start import record_start, share_start

settings = load_settings()
record_start(settings)
share_start(settings)
defs = build_definitions(settings)
