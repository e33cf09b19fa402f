"""Fixture `archived`: the shared cluster, with everything archived that earlier tests wrote."""

from __future__ import annotations

import pytest

from btc_assets_tests.support.clusters import Cluster


@pytest.fixture
def archived(cluster: Cluster) -> Cluster:
    """The cluster, once no WAL file waits to be archived."""
    cluster.wait_until_archived()
    return cluster
