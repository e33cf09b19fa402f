"""What every test starts from: a clean environment, hypothesis without deadlines, and the fixtures of `support/`."""

from __future__ import annotations

import os

# Before anything of ours is imported: the partitions start where the oldest real trades are.
for name in [name for name in os.environ if name.startswith("BTC_ASSETS_") and name != "BTC_ASSETS_TEST_DSN"]:
    del os.environ[name]
os.environ["BTC_ASSETS_PARTITIONS_START"] = "2020-02-01"
os.environ["OMP_NUM_THREADS"] = "1"  # PyTorch's threads would wait for each other while two tests share two cores
os.environ["BTC_ASSETS_HOME"] = "/nonexistent/btc_assets"  # each test has its own; nothing may use this one

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

_FIXTURES = (
    "stores",
    "s3",
    "s3_events",
    "zones",
    "databases",
    "clusters",
    "servers",
    "hosts",
    "stored_slices",
    "docs_store",
    "wide_table",
    "encoder_package",
)
pytest_plugins = [f"btc_assets_tests.support.{name}" for name in _FIXTURES]

# How long an example takes, or the making of one, says nothing on a busy machine.
hypothesis_settings.register_profile(
    "suite", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
hypothesis_settings.load_profile("suite")
