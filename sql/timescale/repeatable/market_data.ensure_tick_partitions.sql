-- Requires: ops.make_security_definer
CREATE OR REPLACE FUNCTION market_data.ensure_tick_partitions(p_from timestamptz, p_to timestamptz) RETURNS integer
LANGUAGE sql IMMUTABLE
AS 'SELECT 0';

COMMENT ON FUNCTION market_data.ensure_tick_partitions IS 'Nothing to do: a hypertable makes its daily chunks itself';

SELECT ops.make_security_definer('market_data.ensure_tick_partitions(timestamptz, timestamptz)');
