"""Landing zones of each kind, a directory for temporary files, and a proxy that injects faults."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from btc_assets.landing.zone import LandingZone
from btc_assets_tests.support.fault_proxy import FaultProxy
from btc_assets_tests.support.s3 import Bucket


@pytest.fixture(params=["directory", "memory", "s3"])
def zone(request: pytest.FixtureRequest, tmp_path: Path) -> LandingZone:
    """An empty landing zone of each kind."""
    if request.param == "s3":
        return request.getfixturevalue("s3").zone()
    if request.param == "memory":
        return LandingZone(f"memory:///{uuid.uuid4().hex}")
    (tmp_path / "landing").mkdir()
    return LandingZone((tmp_path / "landing").as_uri())


@pytest.fixture
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that temporary files are created in."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@pytest.fixture
def proxy(s3: Bucket) -> Iterator[FaultProxy]:
    """A proxy in front of the S3 server."""
    with FaultProxy(s3.server.endpoint) as proxy:
        yield proxy
