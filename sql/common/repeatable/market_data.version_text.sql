-- A version of a trade in words, from what market_data.conflicting_trades keeps of it.
CREATE OR REPLACE FUNCTION market_data.version_text(version jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN concat(
    'price ', version ->> 'price', ', quantity ', version ->> 'quantity',
    CASE version ->> 'is_market_maker' WHEN 'true' THEN ', sold' ELSE ', bought' END, ' at ', version ->> 'trade_time',
    ' in ', version ->> 'uri'
);

COMMENT ON FUNCTION market_data.version_text IS 'A version of a trade in words, from the examples in market_data.conflicting_trades';
