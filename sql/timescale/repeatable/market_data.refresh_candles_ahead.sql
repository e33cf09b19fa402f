-- Refreshes a part of a window ahead of market_data.refresh_candles, which then finds little to do. Several sessions may refresh other
-- parts of the same level at the same time; whatever they leave, that procedure does. Does nothing where ticks were dropped.
--
-- The sorts of a refresh are raised above the default work_mem, or those of busy hours would go through files.
CREATE OR REPLACE PROCEDURE market_data.refresh_candles_ahead(p_level text, p_from timestamptz, p_to timestamptz)
LANGUAGE plpgsql
AS $$
DECLARE
    target text := 'market_data.candle_partials_' || p_level;
    sorts constant text := '32MB';
    work_mem constant text := current_setting('work_mem');
BEGIN
    -- Shared: ops.drop_old_chunks and market_data.refresh_candles take it exclusively. A session lock, because the refresh commits.
    PERFORM pg_advisory_lock_shared(hashtext(target));
    IF market_data.dropped_ticks(p_from, p_to) IS NULL THEN
        IF pg_size_bytes(work_mem) < pg_size_bytes(sorts) THEN
            PERFORM set_config('work_mem', sorts, false);
        END IF;
        CALL refresh_continuous_aggregate(target::regclass, p_from, p_to);
        PERFORM set_config('work_mem', work_mem, false);
    END IF;
    PERFORM pg_advisory_unlock_shared(hashtext(target));
END
$$;

COMMENT ON PROCEDURE market_data.refresh_candles_ahead IS 'Refresh the partial candles of a part of a window, beside other sessions, before refresh_candles';
