-- What a slice was like: features and bars of its ticks, which stay when the ticks are dropped.
-- Their definitions are btc_assets/signals/features.py and bars.py; a test compares this file with them.

CREATE TABLE signals.slice_features (
    bucket_5m timestamptz NOT NULL,
    symbol    text        NOT NULL,
    trade_count             double precision NOT NULL,
    volume                  double precision NOT NULL,
    quote_volume            double precision NOT NULL,
    active_bar_share        double precision NOT NULL,
    log_return              double precision NOT NULL,
    parkinson_volatility    double precision NOT NULL,
    realized_volatility     double precision NOT NULL,
    bipower_volatility      double precision NOT NULL,
    jump_share              double precision NOT NULL,
    positive_semideviation  double precision NOT NULL,
    negative_semideviation  double precision NOT NULL,
    realized_skewness       double precision NOT NULL,
    realized_kurtosis       double precision NOT NULL,
    variance_ratio_2        double precision NOT NULL,
    variance_ratio_6        double precision NOT NULL,
    close_to_vwap           double precision NOT NULL,
    trend_slope             double precision NOT NULL,
    trend_fit               double precision NOT NULL,
    max_drawdown            double precision NOT NULL,
    max_runup               double precision NOT NULL,
    close_location          double precision NOT NULL,
    efficiency_ratio        double precision NOT NULL,
    volume_imbalance        double precision NOT NULL,
    trade_imbalance         double precision NOT NULL,
    imbalance_shift         double precision NOT NULL,
    sign_autocorrelation_1  double precision NOT NULL,
    sign_autocorrelation_10 double precision NOT NULL,
    mean_run_length         double precision NOT NULL,
    longest_run             double precision NOT NULL,
    vpin                    double precision NOT NULL,
    roll_spread             double precision NOT NULL,
    amihud_illiquidity      double precision NOT NULL,
    kyle_lambda             double precision NOT NULL,
    flow_return_correlation double precision NOT NULL,
    tick_volatility         double precision NOT NULL,
    zero_tick_share         double precision NOT NULL,
    mean_trade_size         double precision NOT NULL,
    median_trade_size       double precision NOT NULL,
    p95_trade_size          double precision NOT NULL,
    trade_size_gini         double precision NOT NULL,
    largest_trade_share     double precision NOT NULL,
    mean_interarrival       double precision NOT NULL,
    p95_interarrival        double precision NOT NULL,
    interarrival_cv         double precision NOT NULL,
    burstiness              double precision NOT NULL,
    fano_factor             double precision NOT NULL,
    same_millisecond_share  double precision NOT NULL,
    volume_centroid         double precision NOT NULL,
    bars           vector(960) NOT NULL,
    feature_schema text        NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bucket_5m, symbol)
);

COMMENT ON TABLE signals.slice_features IS '48 features of each slice, made of its ticks alone, and its bars; a slice that holds no ticks has a row where that is known';
COMMENT ON COLUMN signals.slice_features.bucket_5m IS 'Start of the slice (UTC)';
COMMENT ON COLUMN signals.slice_features.symbol IS 'Symbol';
COMMENT ON COLUMN signals.slice_features.trade_count IS 'trades: Number of trades.';
COMMENT ON COLUMN signals.slice_features.volume IS 'base: Sum of q.';
COMMENT ON COLUMN signals.slice_features.quote_volume IS 'quote: Sum of price times q.';
COMMENT ON COLUMN signals.slice_features.active_bar_share IS 'share: Bars with a trade, of 60.';
COMMENT ON COLUMN signals.slice_features.log_return IS 'log: Log of the last price over the first.';
COMMENT ON COLUMN signals.slice_features.parkinson_volatility IS 'log: Log of high over low, divided by sqrt(4 ln 2) (Parkinson 1980).';
COMMENT ON COLUMN signals.slice_features.realized_volatility IS 'log: sqrt of the realised variance RV, the sum of r^2 (Andersen and Bollerslev 1998).';
COMMENT ON COLUMN signals.slice_features.bipower_volatility IS 'log: sqrt of the bipower variation BV = pi/2 * 60/59 * sum |r_t| |r_(t-1)| (Barndorff-Nielsen and Shephard 2004).';
COMMENT ON COLUMN signals.slice_features.jump_share IS 'share: max(0, 1 - BV / RV), the part of RV that is due to jumps (Barndorff-Nielsen and Shephard 2004).';
COMMENT ON COLUMN signals.slice_features.positive_semideviation IS 'log: sqrt of the sum of r^2 where r > 0 (Barndorff-Nielsen, Kinnebrock and Shephard 2010).';
COMMENT ON COLUMN signals.slice_features.negative_semideviation IS 'log: sqrt of the sum of r^2 where r < 0 (Barndorff-Nielsen, Kinnebrock and Shephard 2010).';
COMMENT ON COLUMN signals.slice_features.realized_skewness IS '1: sqrt(60) * sum r^3 / RV^1.5 (Amaya et al. 2015).';
COMMENT ON COLUMN signals.slice_features.realized_kurtosis IS '1: 60 * sum r^4 / RV^2, 3 for normal returns (Amaya et al. 2015).';
COMMENT ON COLUMN signals.slice_features.variance_ratio_2 IS '1: Mean square of overlapping 10 s returns over twice that of r, 1 for a random walk (Lo and MacKinlay 1988).';
COMMENT ON COLUMN signals.slice_features.variance_ratio_6 IS '1: Mean square of overlapping 30 s returns over six times that of r (Lo and MacKinlay 1988).';
COMMENT ON COLUMN signals.slice_features.close_to_vwap IS 'log: Log of the last price over the volume-weighted average price.';
COMMENT ON COLUMN signals.slice_features.trend_slope IS 'log/slice: Slope of the least-squares line through the bars'' log closes, over the 5 minutes.';
COMMENT ON COLUMN signals.slice_features.trend_fit IS 'share: R^2 of that line.';
COMMENT ON COLUMN signals.slice_features.max_drawdown IS 'log: Largest fall of the log price from an earlier high, trade by trade (Magdon-Ismail et al. 2004).';
COMMENT ON COLUMN signals.slice_features.max_runup IS 'log: Largest rise of the log price from an earlier low, trade by trade.';
COMMENT ON COLUMN signals.slice_features.close_location IS 'share: Where the last log price lies between low (0) and high (1).';
COMMENT ON COLUMN signals.slice_features.efficiency_ratio IS 'share: |sum of r| / sum of |r| (Kaufman 1995).';
COMMENT ON COLUMN signals.slice_features.volume_imbalance IS 'share: Sum of s q over the volume (Chordia, Roll and Subrahmanyam 2002).';
COMMENT ON COLUMN signals.slice_features.trade_imbalance IS 'share: Mean of s (Chordia, Roll and Subrahmanyam 2002).';
COMMENT ON COLUMN signals.slice_features.imbalance_shift IS 'share: Sum of s q of the second half (by time) less that of the first, over the volume.';
COMMENT ON COLUMN signals.slice_features.sign_autocorrelation_1 IS '1: Autocorrelation of s from trade to trade (Lillo and Farmer 2004).';
COMMENT ON COLUMN signals.slice_features.sign_autocorrelation_10 IS '1: Autocorrelation of s at 10 trades (Lillo and Farmer 2004).';
COMMENT ON COLUMN signals.slice_features.mean_run_length IS 'trades: Mean length of a run of trades on one side.';
COMMENT ON COLUMN signals.slice_features.longest_run IS 'trades: Length of the longest run of trades on one side.';
COMMENT ON COLUMN signals.slice_features.vpin IS 'share: Mean |imbalance| of 10 buckets of equal volume; trades across their bounds are split (Easley, Lopez de Prado and O''Hara 2012).';
COMMENT ON COLUMN signals.slice_features.roll_spread IS 'log: 2 sqrt(max(0, -mean d_t d_(t-1))), d the log return from trade to trade (Roll 1984).';
COMMENT ON COLUMN signals.slice_features.amihud_illiquidity IS 'log/M quote: Mean of |r| over million quote units traded, of bars with trades (Amihud 2002).';
COMMENT ON COLUMN signals.slice_features.kyle_lambda IS 'log/base: Slope through 0 of r on the bars'' signed volume (Kyle 1985).';
COMMENT ON COLUMN signals.slice_features.flow_return_correlation IS '1: Correlation about 0 of r and the bars'' signed volume, the fit of kyle_lambda (Hasbrouck 1991).';
COMMENT ON COLUMN signals.slice_features.tick_volatility IS 'log: sqrt of the sum of d^2: with realized_volatility, the noise of prices (Zhang, Mykland and Ait-Sahalia 2005).';
COMMENT ON COLUMN signals.slice_features.zero_tick_share IS 'share: Trades at the price of the one before, of those that have one before (Lesmond, Ogden and Trzcinka 1999).';
COMMENT ON COLUMN signals.slice_features.mean_trade_size IS 'base: Mean of q.';
COMMENT ON COLUMN signals.slice_features.median_trade_size IS 'base: Median of q.';
COMMENT ON COLUMN signals.slice_features.p95_trade_size IS 'base: 95 % quantile of q, interpolated linearly.';
COMMENT ON COLUMN signals.slice_features.trade_size_gini IS 'share: Gini coefficient of q, 0 for equal sizes (Gini 1912).';
COMMENT ON COLUMN signals.slice_features.largest_trade_share IS 'share: Largest q over the volume.';
COMMENT ON COLUMN signals.slice_features.mean_interarrival IS 's: Mean wait between trades; the slice''s 300 s for fewer than two trades.';
COMMENT ON COLUMN signals.slice_features.p95_interarrival IS 's: 95 % quantile of waits, interpolated linearly; 300 s for fewer than two trades.';
COMMENT ON COLUMN signals.slice_features.interarrival_cv IS '1: Standard deviation of waits over their mean, 1 for a Poisson process (Engle and Russell 1998).';
COMMENT ON COLUMN signals.slice_features.burstiness IS '1: (CV - 1) / (CV + 1) of waits: -1 regular, 0 Poisson, 1 bursty (Goh and Barabasi 2008).';
COMMENT ON COLUMN signals.slice_features.fano_factor IS '1: Variance over mean of the bars'' trade counts, 1 for a Poisson process (Fano 1947).';
COMMENT ON COLUMN signals.slice_features.same_millisecond_share IS 'share: Trades in the millisecond of the one before, of those that have one before.';
COMMENT ON COLUMN signals.slice_features.volume_centroid IS 'share: Volume-weighted mean time of trades, from start (0) to end (1) of the slice.';
COMMENT ON COLUMN signals.slice_features.bars IS '60 bars of 5 seconds, 16 channels each, one bar after the other; signals.slice_bars shows them as rows';
COMMENT ON COLUMN signals.slice_features.feature_schema IS 'Digest of the names and units of features and channels that the row was made with';
COMMENT ON COLUMN signals.slice_features.created_at IS 'When the row was written';

CREATE VIEW signals.slice_bars AS
SELECT bucket_5m, symbol, bucket_5m + step * interval '5 seconds' AS bar,
       channels[16 * step + 1] AS log_return,
       channels[16 * step + 2] AS close,
       channels[16 * step + 3] AS high,
       channels[16 * step + 4] AS low,
       channels[16 * step + 5] AS vwap,
       channels[16 * step + 6] AS tick_volatility,
       channels[16 * step + 7] AS volume,
       channels[16 * step + 8] AS signed_volume,
       channels[16 * step + 9] AS trade_count,
       channels[16 * step + 10] AS signed_trade_count,
       channels[16 * step + 11] AS mean_trade_size,
       channels[16 * step + 12] AS largest_trade,
       channels[16 * step + 13] AS taker_buy_share,
       channels[16 * step + 14] AS same_side_share,
       channels[16 * step + 15] AS zero_tick_share,
       channels[16 * step + 16] AS longest_wait
FROM (SELECT bucket_5m, symbol, bars::real[] AS channels FROM signals.slice_features) AS slice
CROSS JOIN generate_series(0, 59) AS step;

COMMENT ON VIEW signals.slice_bars IS 'Bars of 5 seconds by event time, 60 of each slice';
COMMENT ON COLUMN signals.slice_bars.bucket_5m IS 'Start of the slice (UTC)';
COMMENT ON COLUMN signals.slice_bars.symbol IS 'Symbol';
COMMENT ON COLUMN signals.slice_bars.bar IS 'Start of the bar (UTC)';
COMMENT ON COLUMN signals.slice_bars.log_return IS 'log: from the close before (in the first bar, from the first price of the slice) to the close';
COMMENT ON COLUMN signals.slice_bars.close IS 'log: last price so far against the first price of the slice; carried forward';
COMMENT ON COLUMN signals.slice_bars.high IS 'log: highest price of the bar against the close before; below 0 where every trade was lower';
COMMENT ON COLUMN signals.slice_bars.low IS 'log: lowest price of the bar against the close before; above 0 where every trade was higher';
COMMENT ON COLUMN signals.slice_bars.vwap IS 'log: volume-weighted average price of the bar against the close before';
COMMENT ON COLUMN signals.slice_bars.tick_volatility IS 'log: square root of the sum of squared returns from trade to trade';
COMMENT ON COLUMN signals.slice_bars.volume IS 'base: quantity traded';
COMMENT ON COLUMN signals.slice_bars.signed_volume IS 'base: quantity that takers bought less what they sold';
COMMENT ON COLUMN signals.slice_bars.trade_count IS 'trades: number of trades';
COMMENT ON COLUMN signals.slice_bars.signed_trade_count IS 'trades: trades in which takers bought less those in which they sold';
COMMENT ON COLUMN signals.slice_bars.mean_trade_size IS 'base: volume over the number of trades';
COMMENT ON COLUMN signals.slice_bars.largest_trade IS 'base: quantity of the largest trade';
COMMENT ON COLUMN signals.slice_bars.taker_buy_share IS 'share: part of the volume that takers bought; 0.5 without trades';
COMMENT ON COLUMN signals.slice_bars.same_side_share IS 'share: trades on the side of the trade before them; 0.5 where none has one before it in the slice';
COMMENT ON COLUMN signals.slice_bars.zero_tick_share IS 'share: trades at the price of the trade before them; 0 where none has one before it in the slice';
COMMENT ON COLUMN signals.slice_bars.longest_wait IS 's: longest time without a trade inside the bar, its edges included; 5 without trades';

-- Slices that were loaded before there were features are due, as if they were loaded now.
INSERT INTO ingestion.due_slices (asset, bucket_5m)
SELECT DISTINCT 'signals/slice_features', bucket_5m FROM landing.raw_blobs_5m
WHERE loaded_at IS NOT NULL AND bucket_5m >= ops.drop_horizon('market_data.btc_ticks');

-- As it was, but for the features; a procedure is replaced as a whole.
-- Drops the chunks of a table that are older than a policy says, oldest first, each in a transaction of its own. Ticks
-- are dropped only where the candles that the store keeps agree with them and their features are made. Called by
-- TimescaleDB's scheduler with the id of its job, and on plain PostgreSQL by ops.run_policy.
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
                kept := coalesce(kept, to_char(chunk.range_start AT TIME ZONE 'UTC', 'YYYY-MM-DD') || ', whose ' || problem);
            END IF;
        END IF;
        COMMIT;
    END LOOP;
    UPDATE ops.retention_jobs SET last_run_at = now(), last_result =
        CASE WHEN kept IS NULL THEN format('ok, dropped %s day(s) of %s', dropped, target)
        ELSE format('kept %s day(s) of %s that are old enough to drop, the first %s: make them again, then it is dropped',
                    kept_count, target, kept) END
    WHERE job_name = 'drop ' || target;
END
$$;

COMMENT ON PROCEDURE ops.drop_old_chunks IS 'Drop what is older than a policy says, but no ticks whose candles or features are not made';
