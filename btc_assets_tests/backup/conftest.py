"""Fixture `archived`: the shared cluster, with everything archived that earlier tests wrote."""

from __future__ import annotations

import pytest

from btc_assets.backup import pgbackrest
from btc_assets_tests.support.clusters import Cluster
from btc_assets_tests.support.waiting import PATIENCE_SECONDS


@pytest.fixture
def archived(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster, once no WAL file waits to be archived; its repository may take its time to answer."""
    monkeypatch.setattr(pgbackrest, "_TRY_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(pgbackrest, "_ANSWER_SECONDS", PATIENCE_SECONDS)
    cluster.wait_until_archived()
    return cluster
