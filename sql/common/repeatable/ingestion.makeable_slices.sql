-- Due slices that can be made now. Candles whose ticks were dropped by the retention policy cannot be made again, and
-- need not be: they were compared with the ticks before the drop. A slice that landed so late that it is already older
-- than the policy allows has ticks until the policy drops them. What is made of features can always be made.
-- Where the ticks themselves are due, the slice was loaded while it was open: the run that loads it once it is closed
-- makes everything else as well.
--
-- Requires: ops.drop_horizon, market_data.dropped_ticks
CREATE OR REPLACE VIEW ingestion.makeable_slices AS
SELECT asset, bucket_5m, due_since, changed_at
FROM ingestion.due_slices AS due
WHERE NOT EXISTS (
    SELECT 1 FROM ingestion.due_slices AS ticks WHERE ticks.bucket_5m = due.bucket_5m AND ticks.asset = 'market_data/btc_ticks'
) AND (
    -- In a subquery, so that it is evaluated once for a query and not once for a row.
    bucket_5m >= (SELECT ops.drop_horizon('market_data.btc_ticks'))
    OR starts_with(asset, 'signals/')
    OR market_data.dropped_ticks(bucket_5m, bucket_5m + interval '5 minutes') IS NULL
);

COMMENT ON VIEW ingestion.makeable_slices IS 'Due slices that can be made now: their ticks are there, or no ticks are needed';
COMMENT ON COLUMN ingestion.makeable_slices.asset IS 'Asset key, such as market_data/candles_1m';
COMMENT ON COLUMN ingestion.makeable_slices.bucket_5m IS 'Start of the slice (UTC)';
COMMENT ON COLUMN ingestion.makeable_slices.due_since IS 'When the slice became due; reconciling renews it, so that a stuck slice is requested again';
COMMENT ON COLUMN ingestion.makeable_slices.changed_at IS 'When its ticks last changed';
