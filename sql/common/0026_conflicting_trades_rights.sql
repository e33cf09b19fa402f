-- Roles that may write the ticks may write what a load records beside them, without another `btc-assets db grant`.
DO $$
DECLARE
    entry record;
BEGIN
    FOR entry IN
        SELECT DISTINCT pg_get_userbyid(granted.grantee) AS role, granted.privilege_type
        FROM pg_class, aclexplode(relacl) AS granted
        WHERE pg_class.oid = 'market_data.btc_ticks'::regclass AND granted.grantee <> 0 AND granted.grantee <> relowner
          AND granted.privilege_type IN ('INSERT', 'UPDATE', 'DELETE')
    LOOP
        EXECUTE format('GRANT %s ON market_data.conflicting_trades TO %I', entry.privilege_type, entry.role);
    END LOOP;
END
$$;
