"""Asset checks of the policies, of the last reconciliation, and of the backups."""

import dagster as dg

from btc_assets.backup.status import read_backup_status
from btc_assets.market_data.keys import TICKS
from btc_assets.ops.keys import POLICIES, RECONCILIATIONS
from btc_assets.ops.policies import declared_policies
from btc_assets.ops.policies_in_force import read_policy_statuses
from btc_assets.ops.reconciliations import read_last_reconciliations
from btc_assets.orchestration.checks import check_result
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.jobs import asset_key
from btc_assets.store.database import Store


def ops_checks(deployment: Deployment) -> list[dg.AssetChecksDefinition]:
    """The checks of this room."""
    settings = deployment.settings
    backups = [_restorable(deployment)] if settings.backup_stanza else []
    return [_policies_in_force(deployment), _nothing_differs(), *backups]


def _policies_in_force(deployment: Deployment) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(POLICIES),
        description="Every declared policy is in force as declared and succeeded last time, and no other policy drops anything.",
    )
    def policies_in_force(store: dg.ResourceParam[Store]) -> dg.AssetCheckResult:
        with plain_failures(), store.connect(owner=True) as connection:
            statuses = read_policy_statuses(connection, declared_policies(deployment.settings))
        problems = [f"{status.job_name}: {problem}" for status in statuses for problem in (status.drift, status.failure) if problem]
        return check_result(problems, "problems", policies=len(statuses))

    return policies_in_force


def _nothing_differs() -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(RECONCILIATIONS),
        description="Landing zone, registry and tables agreed when they were last compared, and no slice was stuck.",
    )
    def nothing_differs(store: dg.ResourceParam[Store]) -> dg.AssetCheckResult:
        with plain_failures(), store.connect() as connection:
            found = read_last_reconciliations(connection)
        if not found:
            return check_result(["nothing was compared yet: run the job reconcile"], "shown")
        sentences = list(dict.fromkeys(sentence for each in found for sentence in each.sentences))
        last = found[-1]
        return check_result(sentences, "shown", compared_at=f"{last.at:%Y-%m-%d %H:%M}", healed=last.healed, **last.problems)

    return nothing_differs


def _restorable(deployment: Deployment) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(TICKS),
        description="There are recent backups, and all WAL since them is archived, so the store can be restored to any moment.",
    )
    def restorable(store: dg.ResourceParam[Store]) -> dg.AssetCheckResult:
        with plain_failures(), store.connect() as connection:
            found = read_backup_status(connection, deployment.settings)
        return check_result(
            found.problems,
            "problems",
            wal_files_waiting=found.wal_waiting,
            wal_age_seconds="unknown" if found.wal_age is None else int(found.wal_age.total_seconds()),
            last_backup=found.backups[-1].label if found.backups else "none",
            restorable_from=f"{found.restorable_from:%Y-%m-%d %H:%M:%S}" if found.restorable_from else "nothing",
            restorable_to=f"{found.restorable_to:%Y-%m-%d %H:%M:%S}" if found.restorable_to else "unknown",
        )

    return restorable
