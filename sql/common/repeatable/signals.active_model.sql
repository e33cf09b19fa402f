-- The model that answers searches for p_symbol. Without p_symbol, the only active model; several are an error.
CREATE OR REPLACE FUNCTION signals.active_model(p_symbol text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found text[] := ARRAY(SELECT model_id FROM signals.models WHERE active AND symbol = coalesce(p_symbol, symbol) ORDER BY symbol);
BEGIN
    IF cardinality(found) = 1 THEN
        RETURN found[1];
    ELSIF cardinality(found) > 1 THEN
        RAISE EXCEPTION 'Several symbols have embeddings: name one of %.',
            (SELECT string_agg(symbol, ', ' ORDER BY symbol) FROM signals.models WHERE active) USING ERRCODE = 'BTC02';
    END IF;
    RAISE EXCEPTION 'No model is active%: train one (btc-assets train) and activate it (btc-assets models activate).',
        coalesce(' for ' || p_symbol, '') USING ERRCODE = 'BTC02';
END
$$;

COMMENT ON FUNCTION signals.active_model IS 'The model that answers searches for a symbol, or for the only one that has any';
