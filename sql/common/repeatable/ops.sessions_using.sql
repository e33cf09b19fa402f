-- The sessions that hold a lock on one of these tables or on a part of them, the oldest transaction first, each in words; NULL if there
-- is none. Who may not see other sessions (pg_read_all_stats) learns their number only.
CREATE OR REPLACE FUNCTION ops.sessions_using(p_tables regclass[]) RETURNS text
LANGUAGE sql STABLE
SET timezone = 'UTC'
AS $$
    SELECT string_agg(
        format('session %s (user %s, application %s, in a transaction since %s)', pid, coalesce(usename, '?'),
               coalesce(nullif(application_name, ''), '?'), coalesce(to_char(xact_start, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), '?')),
        ', ' ORDER BY xact_start, pid
    )
    FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND pid IN (
        SELECT lock.pid FROM pg_locks AS lock
        WHERE lock.granted AND lock.locktype = 'relation' AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (lock.relation = ANY (p_tables) OR lock.relation IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = ANY (p_tables)))
    )
$$;

COMMENT ON FUNCTION ops.sessions_using IS 'Which sessions use tables or parts of them, in words; NULL if none does';
