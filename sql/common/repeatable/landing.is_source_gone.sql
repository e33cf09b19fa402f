-- Does a row of the registry stand for ticks whose object has disappeared? A slice with such a row is not replaced, because that would
-- lose the ticks (promise 6 in docs/architecture.md); a person restores the object or forces the load.
--
-- The planner inlines the call, and then finds the partial index landing.raw_blobs_5m_source_gone, whose predicate is this same
-- expression (sql/common/0013_automation.sql). If you change the expression, create a new index in a numbered migration.
CREATE OR REPLACE FUNCTION landing.is_source_gone(status text, loaded_at timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN status = 'gone' AND loaded_at IS NOT NULL;

COMMENT ON FUNCTION landing.is_source_gone IS 'Whether ticks come from an object that has disappeared, given status and loaded_at of its row in landing.raw_blobs_5m';
