-- A trade has one slice, and versions of one trade agree.

-- What decides whether slices hold versions of the same trades, without reading an object again.
ALTER TABLE landing.raw_blobs_5m
    ADD COLUMN first_trade_id bigint,
    ADD COLUMN last_trade_id  bigint,
    ADD COLUMN event_times    bigint;

COMMENT ON COLUMN landing.raw_blobs_5m.first_trade_id IS 'Lowest trade id of this object in this slice; NULL if it holds no valid row, or was read by release 0.1 and not since';
COMMENT ON COLUMN landing.raw_blobs_5m.last_trade_id IS 'Highest trade id of this object in this slice';
COMMENT ON COLUMN landing.raw_blobs_5m.event_times IS 'How many of row_count have an event time of their own; the others are stored with their trade time in its place';

-- Finds the rows whose ids overlap a given range. A B-tree can do that if it knows how wide a row is at most, so rows are kept apart by
-- their width: at most twice 2^14 ids, at most twice 2^20, any. landing/rivals.py has the same expression.
CREATE INDEX raw_blobs_5m_trade_ids ON landing.raw_blobs_5m (
    asset,
    (CASE WHEN (last_trade_id >> 14) - (first_trade_id >> 14) <= 1 THEN 14
          WHEN (last_trade_id >> 20) - (first_trade_id >> 20) <= 1 THEN 20 ELSE 63 END),
    first_trade_id
) WHERE first_trade_id IS NOT NULL;

CREATE TABLE market_data.conflicting_trades (
    bucket_5m timestamptz NOT NULL,
    symbol    text        NOT NULL,
    conflicts bigint      NOT NULL,
    examples  jsonb       NOT NULL,
    found_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bucket_5m, symbol)
);

COMMENT ON TABLE market_data.conflicting_trades IS 'Slices with versions of trades that contradict the version that counts: in price, quantity, side or trade time. Written by the load, cleared by a load without such versions';
COMMENT ON COLUMN market_data.conflicting_trades.bucket_5m IS 'Slice (UTC) of the versions that do not count';
COMMENT ON COLUMN market_data.conflicting_trades.symbol IS 'Symbol label of the feed';
COMMENT ON COLUMN market_data.conflicting_trades.conflicts IS 'How many versions of trades contradict';
COMMENT ON COLUMN market_data.conflicting_trades.examples IS 'The first of them: trade_id; counts and contradicts, each with its object and values';
COMMENT ON COLUMN market_data.conflicting_trades.found_at IS 'When the slice was loaded';
