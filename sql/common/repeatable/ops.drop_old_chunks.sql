-- Drops the chunks of a table that are older than its policy says, oldest first, each in a transaction of its own. Ticks
-- are dropped only if the candles that the store keeps agree with them and their features are made. TimescaleDB's
-- scheduler calls this procedure with the id of its job; on plain PostgreSQL, ops.run_policy calls it.
--
-- Whoever loads or reads queues behind a lock that is waited for. So it waits two seconds, as long as a reader keeps a transaction open,
-- and keeps the chunk until next time.
CREATE OR REPLACE PROCEDURE ops.drop_old_chunks(job_id integer, config jsonb)
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
        PERFORM set_config('lock_timeout', '2s', true);
        BEGIN
            -- Between the comparison and the drop, no loader may write (they take this lock too) and no other run may drop the chunk.
            PERFORM pg_advisory_xact_lock(hashtext(target));
            IF EXISTS (SELECT 1 FROM ops.chunks(target) AS still WHERE still.range_start = chunk.range_start) THEN
                -- Lock before reading. Compression locks the chunk first as well, so one waits for the other. Readers go on.
                EXECUTE format('LOCK TABLE %s IN EXCLUSIVE MODE', chunk.name);  -- ops.chunks quotes it
                IF target = 'market_data.btc_ticks' THEN
                    FOR level IN SELECT name, source FROM market_data.candle_levels ORDER BY width LOOP
                        -- Do not wait for candles that are no longer kept up to date, because their policy was removed.
                        CONTINUE WHEN NOT EXISTS (
                            SELECT 1 FROM ops.retention_jobs WHERE job_name = 'refresh market_data.candle_partials_' || level.name
                        );
                        IF level.source IS NULL THEN
                            PERFORM pg_advisory_xact_lock(hashtext('market_data.candle_partials_' || level.name));
                        END IF;
                        problem := coalesce(problem, market_data.outdated_candles(level.name, chunk.range_start, chunk.range_end));
                    END LOOP;
                    problem := coalesce(problem, (
                        SELECT format('features are not made, from %s on', to_char(min(bucket_5m) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"'))
                        FROM ingestion.due_slices
                        WHERE asset = 'signals/slice_features' AND bucket_5m >= chunk.range_start AND bucket_5m < chunk.range_end
                        HAVING count(*) > 0
                    ));
                END IF;
                IF problem IS NULL THEN
                    PERFORM ops.drop_chunk(target, chunk.range_start, chunk.range_end);
                    dropped := dropped + 1;
                ELSE
                    kept_count := kept_count + 1;
                    kept := coalesce(kept, to_char(chunk.range_start AT TIME ZONE 'UTC', 'YYYY-MM-DD') || ', whose ' || problem
                                           || ': make them again, then it is dropped');
                END IF;
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            kept_count := kept_count + 1;
            kept := coalesce(kept, to_char(chunk.range_start AT TIME ZONE 'UTC', 'YYYY-MM-DD') || ', which is in use by ' || coalesce(
                ops.sessions_using(ARRAY[target::regclass, to_regclass(chunk.name)]), 'a session that has ended') || ': it is dropped next time');
        END;
        COMMIT;
    END LOOP;
    UPDATE ops.retention_jobs SET last_run_at = now(), last_result =
        CASE WHEN kept IS NULL THEN format('ok, dropped %s day(s) of %s', dropped, target)
        ELSE format('kept %s day(s) of %s that are old enough to drop, the first %s', kept_count, target, kept) END
    WHERE job_name = 'drop ' || target;
END
$$;

COMMENT ON PROCEDURE ops.drop_old_chunks IS 'Drop the chunks that are older than a policy says, except ticks whose candles or features are not made yet';
