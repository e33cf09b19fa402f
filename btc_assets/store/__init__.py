"""PostgreSQL as the store uses it: connections, migrations, replacing slices by COPY. Knows tables, but not what they mean; no Dagster."""
