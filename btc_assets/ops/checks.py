"""Asset check of the policies: what is declared is in force, and works."""

import dagster as dg

from btc_assets.checks import problems_result
from btc_assets.ops import retention_jobs as jobs
from btc_assets.ops.policies import declared
from btc_assets.resources import Store, plain_failures
from btc_assets.settings import settings

_ASSET = dg.AssetKey(["ops", "retention_jobs"])


@dg.asset_check(
    asset=_ASSET, description="Every declared policy is in force as declared and went well last time, and no other drops anything."
)
def policies_in_force(store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection:
        statuses = jobs.read(connection, declared(settings()))
    problems = [f"{s.job_name}: {problem}" for s in statuses for problem in (s.drift, s.failure) if problem]
    return problems_result(problems, "problems", policies=len(statuses))


ops_checks = [policies_in_force]
