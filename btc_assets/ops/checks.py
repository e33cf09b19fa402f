"""Asset checks of the policies and of the last comparison of everything with everything."""

import dagster as dg

from btc_assets.backup.backups import backup_status
from btc_assets.domain.settings import settings
from btc_assets.ops import retention_jobs as jobs
from btc_assets.ops.policies import declared
from btc_assets.ops.reconcile import last_reconciliations
from btc_assets.orchestration.checks import problems_result
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.resources import Store

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


@dg.asset_check(
    asset=dg.AssetKey(["market_data", "btc_ticks"]),
    description="There are recent backups, and all WAL since is archived, so that the store can be restored to any moment.",
)
def restorable(store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        found = backup_status(connection, settings())
    metadata = {
        "wal_files_waiting": found.wal_waiting,
        "wal_age_seconds": "unknown" if found.wal_age is None else int(found.wal_age.total_seconds()),
        "last_backup": found.backups[-1].label if found.backups else "none",
        "restorable_from": f"{found.restorable_from:%Y-%m-%d %H:%M:%S}" if found.restorable_from else "nothing",
        "restorable_to": f"{found.restorable_to:%Y-%m-%d %H:%M:%S}" if found.restorable_to else "unknown",
    }
    return problems_result(found.problems, "problems", **metadata)


ops_checks = [policies_in_force, nothing_differs, *([restorable] if settings().backup_stanza else [])]
