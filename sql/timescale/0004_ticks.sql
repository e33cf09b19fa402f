CREATE TABLE market_data.btc_ticks (
    bucket_5m       timestamptz    NOT NULL,
    event_time      timestamptz    NOT NULL,
    trade_time      timestamptz    NOT NULL,
    symbol          text           NOT NULL,
    trade_id        bigint         NOT NULL,
    price           numeric(18, 8) NOT NULL,
    quantity        numeric(24, 12) NOT NULL,
    buyer_order_id  bigint,
    seller_order_id bigint,
    is_market_maker boolean        NOT NULL,
    PRIMARY KEY (bucket_5m, symbol, trade_id)
);

-- The primary key begins with the slice, so an index on the slice alone would serve no query.
SELECT create_hypertable('market_data.btc_ticks', by_range('bucket_5m', interval '1 day'), create_default_indexes => false);

CREATE FUNCTION market_data.ensure_tick_partitions(p_from timestamptz, p_to timestamptz) RETURNS integer
LANGUAGE sql IMMUTABLE
AS 'SELECT 0';

COMMENT ON FUNCTION market_data.ensure_tick_partitions IS 'Nothing to do: a hypertable makes its daily chunks itself';
