-- The statements that make roles and databases as they should be; none where they are. setup_timescale.sh runs them.

WITH wanted(role) AS (VALUES (:'owner'), (:'loader'), (:'reader'), (:'dagster'))
SELECT format('CREATE ROLE %I LOGIN', role) FROM wanted WHERE role NOT IN (SELECT rolname FROM pg_roles)
UNION ALL
SELECT format('ALTER ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', rolname)
FROM pg_roles JOIN wanted ON role = rolname
WHERE rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls OR NOT rolcanlogin;

WITH wanted(name, owner) AS (VALUES (:'database', :'owner'), ('dagster', :'dagster'))
SELECT format('CREATE DATABASE %I OWNER %I TEMPLATE template0', name, owner)
FROM wanted JOIN pg_roles ON rolname = owner WHERE name NOT IN (SELECT datname FROM pg_database)
UNION ALL
SELECT format('ALTER DATABASE %I OWNER TO %I', name, owner)
FROM wanted JOIN pg_database ON datname = name JOIN pg_roles ON rolname = owner WHERE datdba <> pg_roles.oid;

-- Nobody connects who is not told to: not to Dagster's database, nor to the server's own.
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', datname)
FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))
WHERE datname IN (:'database', 'dagster', 'postgres', 'template1') AND grantee = 0 GROUP BY datname;

WITH wanted(role, privileges) AS (VALUES (:'loader', 'CONNECT, TEMPORARY'), (:'reader', 'CONNECT'))
SELECT format('GRANT %s ON DATABASE %I TO %I', privileges, datname, role)
FROM wanted JOIN pg_roles ON rolname = role JOIN pg_database ON datname = :'database'
WHERE EXISTS (SELECT FROM unnest(string_to_array(privileges, ', ')) privilege WHERE NOT EXISTS (
    SELECT FROM aclexplode(datacl) WHERE grantee = pg_roles.oid AND privilege_type = privilege));
