-- Policies are declared in btc_assets/ops/policies.py and written here by `btc-assets ops apply`. What puts them into
-- force differs between the engines; dropping old chunks does not.

COMMENT ON TABLE ops.retention_jobs IS 'Policies on tables: what is declared, whether it is in force, and how it last went';
COMMENT ON COLUMN ops.retention_jobs.job_name IS 'Kind and table, such as "drop market_data.btc_ticks"';
COMMENT ON COLUMN ops.retention_jobs.hypertable IS 'Table that it works on';
COMMENT ON COLUMN ops.retention_jobs.policy IS 'Kind (compress, drop, refresh, keep) and settings';
COMMENT ON COLUMN ops.retention_jobs.state IS 'declared; applied: in force; drifted: the server has something else; not supported: by this engine';
COMMENT ON COLUMN ops.retention_jobs.last_result IS 'ok and what it did, or why it did not do everything';

-- Drops the chunks of a table that are older than a policy says, oldest first, each in a transaction of its own. Ticks
-- are dropped only where all candles made of them are there. Called by TimescaleDB's scheduler with the id of its job,
-- and on plain PostgreSQL by ops.run_policy.
CREATE PROCEDURE ops.drop_old_chunks(job_id integer, config jsonb)
LANGUAGE plpgsql
AS $$
DECLARE
    target text := config ->> 'hypertable';
    cutoff timestamptz := now() - (config ->> 'drop_after')::interval;
    level text;
    chunk record;
    problem text;
    kept text;
    dropped integer := 0;
    kept_count integer := 0;
BEGIN
    FOR chunk IN SELECT range_start, range_end FROM ops.chunks(target) WHERE range_end <= cutoff ORDER BY range_start LOOP
        problem := NULL;
        IF target = 'market_data.btc_ticks' THEN
            -- Neither a loader nor a refresh may work on these slices between the comparison and the drop.
            FOR level IN SELECT name FROM market_data.candle_levels WHERE source IS NULL ORDER BY name LOOP
                PERFORM pg_advisory_xact_lock(hashtext('market_data.candle_partials_' || level));
            END LOOP;
            PERFORM count(pg_advisory_xact_lock(hashtext(target), number))
            FROM generate_series((extract(epoch FROM chunk.range_start) / 300)::int, (extract(epoch FROM chunk.range_end) / 300)::int - 1) AS number;
            problem := market_data.incomplete_candles(chunk.range_start, chunk.range_end);
        END IF;
        IF problem IS NULL THEN
            PERFORM ops.drop_chunk(target, chunk.range_start, chunk.range_end);
            dropped := dropped + 1;
        ELSE
            kept_count := kept_count + 1;
            kept := coalesce(kept, to_char(chunk.range_start AT TIME ZONE 'UTC', 'YYYY-MM-DD') || ', whose ' || problem);
        END IF;
        COMMIT;
    END LOOP;
    UPDATE ops.retention_jobs SET last_run_at = now(), last_result =
        CASE WHEN kept IS NULL THEN format('ok, dropped %s day(s) of %s', dropped, target)
        ELSE format('kept %s day(s) of %s that are old enough to drop, the first %s: make its candles, then it is dropped', kept_count, target, kept) END
    WHERE job_name = config ->> 'job_name';
END
$$;

COMMENT ON PROCEDURE ops.drop_old_chunks IS 'Drop what is older than a policy says, but no ticks whose candles are not made';
