-- What a load has in its hands anyway, written in the transaction that writes the ticks. Checks compare this small table with the
-- registry, the candles and the features, and it with the table of ticks in one pass, instead of adding the ticks up for each of them.
-- A slice that a former release loaded has no row; its ticks are read instead.
CREATE TABLE market_data.loaded_slices (
    bucket_5m              timestamptz NOT NULL,
    symbol                 text        NOT NULL,
    ticks                  bigint      NOT NULL,
    first_trade_id         bigint      NOT NULL,
    last_trade_id          bigint      NOT NULL,
    trade_ids_xor          bigint      NOT NULL,
    market_trades          bigint      NOT NULL,
    volume                 numeric     NOT NULL,
    quote_volume           numeric     NOT NULL,
    taker_buy_volume       numeric     NOT NULL,
    taker_buy_quote_volume numeric     NOT NULL,
    loaded_at              timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bucket_5m, symbol)
);

COMMENT ON TABLE market_data.loaded_slices IS 'What the last load of each slice and symbol wrote into btc_ticks: counted and added up before it was written, in the same transaction. A slice without ticks has no row';
COMMENT ON COLUMN market_data.loaded_slices.bucket_5m IS 'Slice (UTC)';
COMMENT ON COLUMN market_data.loaded_slices.symbol IS 'Symbol label of the feed';
COMMENT ON COLUMN market_data.loaded_slices.ticks IS 'Rows of btc_ticks. The trade ids between the first and the last that no tick has are last_trade_id - first_trade_id + 1 - ticks';
COMMENT ON COLUMN market_data.loaded_slices.first_trade_id IS 'Lowest trade id';
COMMENT ON COLUMN market_data.loaded_slices.last_trade_id IS 'Highest trade id';
COMMENT ON COLUMN market_data.loaded_slices.trade_ids_xor IS 'Exclusive or of all trade ids, as bit_xor(trade_id) gives: tells that an id changed between the first and the last';
COMMENT ON COLUMN market_data.loaded_slices.market_trades IS 'Ticks that are trades of the market (market_data.is_market_trade); the volumes are theirs';
COMMENT ON COLUMN market_data.loaded_slices.volume IS 'Sum of quantity';
COMMENT ON COLUMN market_data.loaded_slices.quote_volume IS 'Sum of price * quantity';
COMMENT ON COLUMN market_data.loaded_slices.taker_buy_volume IS 'Sum of quantity of the trades in which the taker bought';
COMMENT ON COLUMN market_data.loaded_slices.taker_buy_quote_volume IS 'Sum of price * quantity of the trades in which the taker bought';
COMMENT ON COLUMN market_data.loaded_slices.loaded_at IS 'When the transaction of the load began, as in landing.raw_blobs_5m; if that one is later, a former release loaded the slice since';

-- Roles that may write the ticks may write this, without another `btc-assets db grant`.
DO $$
DECLARE
    entry record;
BEGIN
    FOR entry IN
        SELECT DISTINCT pg_get_userbyid(granted.grantee) AS role, granted.privilege_type
        FROM pg_class, aclexplode(relacl) AS granted
        WHERE pg_class.oid = 'market_data.btc_ticks'::regclass AND granted.grantee <> 0 AND granted.grantee <> relowner
          AND granted.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP
        EXECUTE format('GRANT %s ON market_data.loaded_slices TO %I', entry.privilege_type, entry.role);
    END LOOP;
END
$$;
