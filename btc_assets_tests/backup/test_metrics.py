"""The metrics that alarms watch."""

from __future__ import annotations

import boto3
import pytest
from moto import mock_aws

from btc_assets.backup.metrics import put_metrics
from btc_assets.backup.status import read_backup_status
from btc_assets.domain.errors import UserError
from btc_assets_tests.support.clusters import Cluster

pytestmark = pytest.mark.xdist_group("backups")  # they share one cluster


def test_alarms_get_what_is_known_and_nothing_otherwise(archived: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "eu-central-1"}.items():
        monkeypatch.setenv(name, value)
    with archived.connect() as connection:
        known = read_backup_status(connection, archived.settings())
        unknown = read_backup_status(connection, archived.settings().model_copy(update={"backup_stanza": None}))
    with mock_aws():
        put_metrics(known, "btc", "host-1")
        put_metrics(unknown, "btc", "host-2")
        listed = boto3.client("cloudwatch").list_metrics(Namespace="btc")["Metrics"]
    names = {(metric["Dimensions"][0]["Name"], metric["Dimensions"][0]["Value"], metric["MetricName"]) for metric in listed}
    always = {"WalFilesWaiting", "DataDiskUsedPercent"}
    assert names == {("Host", "host-1", name) for name in always | {"WalArchiveAgeSeconds", "LastBackupAgeSeconds"}} | {
        ("Host", "host-2", name) for name in always
    }
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(UserError, match=r"CloudWatch does not accept the metrics \(You must specify a region\.\)"):
        put_metrics(known, "btc", "host-1")
