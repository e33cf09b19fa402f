"""Assets with daily partitions: one with a check, which logs and prints, and one with metadata."""

import dagster as dg

DAYS = dg.DailyPartitionsDefinition("2024-01-01")


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run(), check_specs=[dg.AssetCheckSpec("good", asset="talkative")])
def talkative(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]  # Dagster reads any return type as that of several outputs
    context.log.info("started")
    print("a line of output", flush=True)
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def described(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    for day, note in (("2024-01-13", 'it\'s "quoted" \\ %(x)s :y ü'), ("2024-01-20", "the last")):
        context.add_asset_metadata({"note": note}, described.key, day)
    return dg.MaterializeResult(metadata={"rows": 3, "text": 'it\'s "quoted" \\ %(x)s :y ü', "nothing": None}, tags={"color": "red"})


def run_day(instance: dg.DagsterInstance) -> dg.DagsterRun:
    """Materialize the 10th of January."""
    return dg.materialize([talkative], instance=instance, partition_key="2024-01-10").dagster_run


def run_days(instance: dg.DagsterInstance, asset: dg.AssetsDefinition = talkative) -> None:
    """Materialize eleven days, from the 10th to the 20th, in one run."""
    tags = {"dagster/asset_partition_range_start": "2024-01-10", "dagster/asset_partition_range_end": "2024-01-20"}
    job = dg.define_asset_job("range", [asset]).resolve(asset_graph=dg.Definitions([asset]).resolve_asset_graph())
    assert job.execute_in_process(instance=instance, tags=tags).success
