"""The code location that Dagster loads: the definitions of the store that this process's settings name."""

from btc_assets.assembly import build_definitions
from btc_assets.domain.settings import load_settings

defs = build_definitions(load_settings())
