"""Importing the package: settings are read by the code location alone, and its start-up stays lean."""

from __future__ import annotations

import os
import subprocess
import sys

from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.waiting import PATIENCE_SECONDS

_IMPORT_EVERYTHING = """
import importlib, pkgutil
import btc_assets

for module in pkgutil.walk_packages(btc_assets.__path__, "btc_assets."):
    if module.name not in ("btc_assets.definitions", "btc_assets.cli.__main__"):
        importlib.import_module(module.name)
print("imported")
"""


def run_python(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(PROJECT)} | variables
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS)


def test_only_the_code_location_reads_the_settings_when_it_is_imported() -> None:
    imported = run_python(_IMPORT_EVERYTHING, BTC_ASSETS_NONSENSE="1")
    assert imported.stdout == "imported\n", imported.stderr[-3000:]
    refused = run_python("import btc_assets.definitions", BTC_ASSETS_NONSENSE="1")
    assert refused.returncode != 0
    assert refused.stderr.splitlines()[-1].endswith("UserError: BTC_ASSETS_NONSENSE is not a setting: see docs/settings.md.")


def test_the_code_location_imports_neither_torch_nor_matplotlib() -> None:
    script = "import sys, btc_assets.definitions; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = run_python(script, BTC_ASSETS_HOME="/nonexistent")
    assert loaded.returncode == 0, loaded.stderr[-3000:]
    assert {"torch", "matplotlib", "safetensors", "celery"} & set(loaded.stdout.split()) == set()
