"""Metrics of the backups in CloudWatch, which alarms watch."""

from __future__ import annotations

from datetime import timedelta

from btc_assets.backup.status import BackupStatus
from btc_assets.domain.errors import UserError


def put_metrics(status: BackupStatus, namespace: str, host: str) -> None:
    """Put the metrics into CloudWatch. An unknown value is not put, because alarms treat missing data as a breach.

    Args:
        status: of the backups.
        namespace: of the metrics.
        host: value of their one dimension, `Host`.

    Raises:
        UserError: CloudWatch does not accept them.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    values: list[tuple[str, float | timedelta | None, str]] = [
        ("WalArchiveAgeSeconds", status.wal_age, "Seconds"),
        ("WalFilesWaiting", status.wal_waiting, "Count"),
        ("LastBackupAgeSeconds", status.backup_age, "Seconds"),
        ("DataDiskUsedPercent", status.disk_used, "Percent"),
    ]
    data = [
        {
            "MetricName": name, "Dimensions": [{"Name": "Host", "Value": host}], "Timestamp": status.at, "Unit": unit,
            "Value": value.total_seconds() if isinstance(value, timedelta) else value,
        }
        for name, value, unit in values if value is not None
    ]  # fmt: skip
    try:
        client = boto3.client("cloudwatch", config=Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2}))
        client.put_metric_data(Namespace=namespace, MetricData=data)
    except (BotoCoreError, ClientError) as error:
        raise UserError(f"CloudWatch does not accept the metrics ({error}): check the AWS region, credentials and endpoint.") from None
