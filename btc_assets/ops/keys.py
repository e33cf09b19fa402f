"""Asset keys of this room, as `schema/table`."""

POLICIES = "ops/retention_jobs"
RECONCILIATIONS = "ops/reconciliations"
