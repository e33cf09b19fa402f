-- Is a row of the registry work to do: does the landing zone hold something other than what the tick table holds?
--
-- Everything that asks this question calls this function. The planner inlines it, and then finds the partial index
-- landing.raw_blobs_5m_unsettled, whose predicate is this same expression (sql/common/0013_automation.sql). If you
-- change the expression, create a new index in a numbered migration, or every call scans the whole registry.
CREATE OR REPLACE FUNCTION landing.is_unsettled(status text, loaded_at timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN status = 'noticed' OR (status IN ('registered', 'superseded') AND (status = 'registered') <> (loaded_at IS NOT NULL));

COMMENT ON FUNCTION landing.is_unsettled IS 'Whether a row of landing.raw_blobs_5m is work to do, given its status and loaded_at';
