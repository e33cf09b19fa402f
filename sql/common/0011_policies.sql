-- Policies are declared in btc_assets/ops/policies.py and written here by `btc-assets ops apply`. What puts them into
-- force differs between the engines; dropping old chunks does not.

COMMENT ON TABLE ops.retention_jobs IS 'Policies on tables: what is declared, whether it is in force, and how it last went';
COMMENT ON COLUMN ops.retention_jobs.job_name IS 'Kind and table, such as "drop market_data.btc_ticks"';
COMMENT ON COLUMN ops.retention_jobs.hypertable IS 'Table that it works on';
COMMENT ON COLUMN ops.retention_jobs.policy IS 'Kind (compress, drop, refresh, keep) and settings';
COMMENT ON COLUMN ops.retention_jobs.state IS 'declared; applied: in force; drifted: the server has something else; not supported: by this engine';
COMMENT ON COLUMN ops.retention_jobs.last_result IS 'ok and what it did, or why it did not do everything';

CREATE FUNCTION ops.drop_horizon(p_table text) RETURNS timestamptz
LANGUAGE sql STABLE
AS $$
    SELECT coalesce(max(now() - (policy ->> 'after')::interval), '-infinity') FROM ops.retention_jobs
    WHERE job_name = 'drop ' || p_table AND state IN ('applied', 'drifted')
$$;

COMMENT ON FUNCTION ops.drop_horizon IS 'What is older may have been dropped from a table by its policy';

-- Drops the chunks of a table that are older than a policy says, oldest first, each in a transaction of its own. Ticks
-- are dropped only where the candles that the store keeps agree with them. Called by TimescaleDB's scheduler with the id
-- of its job, and on plain PostgreSQL by ops.run_policy.
CREATE PROCEDURE ops.drop_old_chunks(job_id integer, config jsonb)
LANGUAGE plpgsql
AS $$
DECLARE
    target text := config ->> 'hypertable';
    cutoff timestamptz := now() - (config ->> 'drop_after')::interval;
    level record;
    chunk record;
    problem text;
    kept text;
    dropped integer := 0;
    kept_count integer := 0;
BEGIN
    FOR chunk IN SELECT name, range_start, range_end FROM ops.chunks(target) WHERE range_end <= cutoff ORDER BY range_start LOOP
        problem := NULL;
        -- No loader may write between the comparison and the drop (see btc_assets/copy.py), and no other run drop the same.
        PERFORM pg_advisory_xact_lock(hashtext(target));
        IF EXISTS (SELECT 1 FROM ops.chunks(target) AS still WHERE still.range_start = chunk.range_start) THEN
            -- Before it is read: who compresses it locks it first, too, and so one waits for the other. Reading goes on.
            EXECUTE format('LOCK TABLE %s IN EXCLUSIVE MODE', chunk.name);  -- ops.chunks quotes it
            IF target = 'market_data.btc_ticks' THEN
                FOR level IN SELECT name, source FROM market_data.candle_levels ORDER BY width LOOP
                    -- Candles that are not kept up, because nobody wants them any more, are not waited for.
                    CONTINUE WHEN NOT EXISTS (
                        SELECT 1 FROM ops.retention_jobs WHERE job_name = 'refresh market_data.candle_partials_' || level.name
                    );
                    IF level.source IS NULL THEN
                        PERFORM pg_advisory_xact_lock(hashtext('market_data.candle_partials_' || level.name));
                    END IF;
                    problem := coalesce(problem, market_data.outdated_candles(level.name, chunk.range_start, chunk.range_end));
                END LOOP;
            END IF;
            IF problem IS NULL THEN
                PERFORM ops.drop_chunk(target, chunk.range_start, chunk.range_end);
                dropped := dropped + 1;
            ELSE
                kept_count := kept_count + 1;
                kept := coalesce(kept, to_char(chunk.range_start AT TIME ZONE 'UTC', 'YYYY-MM-DD') || ', whose ' || problem);
            END IF;
        END IF;
        COMMIT;
    END LOOP;
    UPDATE ops.retention_jobs SET last_run_at = now(), last_result =
        CASE WHEN kept IS NULL THEN format('ok, dropped %s day(s) of %s', dropped, target)
        ELSE format('kept %s day(s) of %s that are old enough to drop, the first %s: make its candles again, then it is dropped',
                    kept_count, target, kept) END
    WHERE job_name = 'drop ' || target;
END
$$;

COMMENT ON PROCEDURE ops.drop_old_chunks IS 'Drop what is older than a policy says, but no ticks whose candles are not made';
