-- The statements that only a superuser may run in the store's database; none where they have been. setup_timescale.sh runs them.

SELECT format('CREATE EXTENSION %I', name) FROM (VALUES ('vector', true), ('timescaledb', :timescaledb)) wanted(name, needed)
WHERE needed AND name NOT IN (SELECT extname FROM pg_extension);

SELECT 'REVOKE CREATE ON SCHEMA public FROM PUBLIC' FROM pg_namespace, aclexplode(nspacl)
WHERE nspname = 'public' AND grantee = 0 AND privilege_type = 'CREATE';

-- For btc-assets ops backup-status: how much WAL waits to be archived.
SELECT format('GRANT pg_monitor TO %I', :'loader') WHERE NOT pg_has_role(:'loader', 'pg_monitor', 'MEMBER');
