-- Is a row of the registry a problem by itself: an object that is unreadable, or that disappeared before it was loaded, or that holds
-- rows which are no valid trades? The view landing.problems shows these rows.
--
-- The planner inlines the call, and then finds the partial index landing.raw_blobs_5m_problems, whose predicate is this same expression
-- (sql/common/0019_problems.sql). If you change the expression, create a new index in a numbered migration, or every check of the store
-- scans the whole registry.
CREATE OR REPLACE FUNCTION landing.is_problem(status text, loaded_at timestamptz, metadata jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN status = 'rejected' OR (status = 'gone' AND loaded_at IS NULL) OR (status = 'registered' AND metadata ? 'rejected_rows');

COMMENT ON FUNCTION landing.is_problem IS 'Whether a row of landing.raw_blobs_5m is a problem by itself, given its status, loaded_at and metadata';
