"""Asset checks of the policies and of the last comparison of everything with everything."""

import dagster as dg

from btc_assets.checks import problems_result
from btc_assets.failures import plain_failures
from btc_assets.ops import retention_jobs as jobs
from btc_assets.ops.policies import declared
from btc_assets.ops.reconcile import last_reconciliations
from btc_assets.resources import Store
from btc_assets.settings import settings

_ASSET = dg.AssetKey(["ops", "retention_jobs"])


@dg.asset_check(
    asset=_ASSET, description="Every declared policy is in force as declared and went well last time, and no other drops anything."
)
def policies_in_force(store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect(owner=True) as connection:
        statuses = jobs.read(connection, declared(settings()))
    problems = [f"{s.job_name}: {problem}" for s in statuses for problem in (s.drift, s.failure) if problem]
    return problems_result(problems, "problems", policies=len(statuses))


@dg.asset_check(
    asset=dg.AssetKey(["ops", "reconciliations"]),
    description="When they were last compared, landing zone, registry and tables agreed, and no slice was stuck.",
)
def nothing_differs(store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection:
        found = last_reconciliations(connection)
    if not found:
        return problems_result(["nothing was compared yet: run the job reconcile"], "shown")
    sentences = list(dict.fromkeys(sentence for one in found for sentence in one.sentences))
    last = found[-1]
    return problems_result(sentences, "shown", compared_at=f"{last.at:%Y-%m-%d %H:%M}", healed=last.healed, **last.problems)


ops_checks = [policies_in_force, nothing_differs]
