# shellcheck shell=bash disable=SC2154 # the options are setup_timescale.sh's
# Configuration files, to standard output; read by setup_timescale.sh.

# What Debian's pg_createcluster would write, as far as it differs from PostgreSQL's defaults.
cluster_conf() {
    cat <<END
# Made by setup_timescale.sh, once. Settings of your own go into a file in conf.d that is named after btc-assets.conf.
data_directory = '$data'
hba_file = '$configuration/pg_hba.conf'
ident_file = '$configuration/pg_ident.conf'
external_pid_file = '/var/run/postgresql/$postgresql-main.pid'
unix_socket_directories = '/var/run/postgresql'
cluster_name = '$postgresql/main'
include_dir = 'conf.d'
END
}

within() { echo $(($1 < $2 ? $2 : $1 > $3 ? $3 : $1)); } # VALUE LEAST MOST

# For a host that is shared with Dagster: half of the memory stays for it and for the system's cache.
postgresql_conf() {
    local workers=$((3 + cpus)) preloaded=''
    local listen=''
    ((${#allowed[@]} == 0)) || listen='*'
    if $timescaledb; then workers=$((workers + 16)) preloaded=timescaledb; fi
    cat <<END
# Written by setup_timescale.sh for $memory_mb MB of memory and $cpus CPUs; it is written again by the next run.

shared_buffers = $((memory_mb / 4))MB
effective_cache_size = $((memory_mb * 3 / 4))MB
maintenance_work_mem = $(within $((memory_mb / 8)) 64 2048)MB
work_mem = $(within $((memory_mb / 256)) 4 64)MB
max_wal_size = $(within "$memory_mb" 1024 16384)MB
max_connections = 50
max_worker_processes = $workers
max_parallel_workers = $cpus
max_parallel_workers_per_gather = $(within $((cpus / 2)) 1 4)
random_page_cost = 1.1
jit = off
default_toast_compression = lz4
wal_compression = on
timezone = 'UTC'
shared_preload_libraries = '$preloaded'
END
    if $timescaledb; then
        cat <<END
timescaledb.max_background_workers = 16
timescaledb.license = 'timescale'
timescaledb.telemetry_level = off
END
    fi
    if [[ ${backup_bucket:-} ]]; then
        cat <<END

# At most a minute of trades is lost with the host.
archive_mode = on
archive_timeout = 60
archive_command = 'pgbackrest --stanza=$database archive-push %p'
END
    fi
    cat <<END

# Who may connect from where is in pg_hba.conf.
listen_addresses = '$listen'
password_encryption = 'scram-sha-256'
ssl = on
ssl_cert_file = '${tls:-}/server.crt'
ssl_key_file = '${tls:-}/server.key'
ssl_min_protocol_version = 'TLSv1.2'

# A client whose machine is gone without a word keeps its locks for a minute and a half, not for hours.
tcp_keepalives_idle = 60
tcp_keepalives_interval = 10
tcp_keepalives_count = 3
client_connection_check_interval = 10s

# What a transaction has read cannot be dropped or compressed while it is open, so none is left open for ever.
idle_in_transaction_session_timeout = 30min

# Messages, but no statement: one that fails may hold a password.
log_statement = 'none'
log_min_duration_statement = -1
log_min_error_statement = 'panic'
log_line_prefix = '%m [%p] %q%u@%d %h '
log_timezone = 'UTC'
log_lock_waits = on
END
}

pg_hba_conf() {
    local range
    cat <<END
# Written by setup_timescale.sh; it is written again by the next run.
local all postgres peer
local all $owner,$loader,$reader,$dagster peer map=btc
END
    for range in "${allowed[@]}"; do echo "hostssl $database $owner,$loader,$reader $range scram-sha-256"; done
    cat <<END
local all all reject
host all all all reject
END
}

pg_ident_conf() {
    echo "# Written by setup_timescale.sh: the operating system's user btc may be each of these."
    printf 'btc btc %s\n' "$owner" "$loader" "$reader" "$dagster"
}

pgbackrest_conf() {
    cat <<END
# Written by setup_timescale.sh; it is written again by the next run.
[global]
repo1-type=s3
repo1-path=/${backup_prefix#/}
repo1-s3-bucket=$backup_bucket
repo1-s3-region=$region
repo1-bundle=y
repo1-retention-full=4
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=${secrets[backup-cipher]}
compress-type=zst
process-max=$cpus
start-fast=y
archive-async=y
spool-path=/var/spool/pgbackrest
log-level-console=warn
END
    if [[ $backup_endpoint ]]; then
        cat <<END
repo1-s3-endpoint=${backup_endpoint%:*}
repo1-storage-port=$([[ $backup_endpoint == *:* ]] && echo "${backup_endpoint##*:}" || echo 443)
repo1-s3-uri-style=path
repo1-s3-key=${secrets[backup-key]}
repo1-s3-key-secret=${secrets[backup-key-secret]}
END
    else
        # The rights are the host's own.
        echo "repo1-s3-endpoint=s3.$region.amazonaws.com"
        echo "repo1-s3-key-type=auto"
    fi
    [[ ! $backup_ca ]] || echo "repo1-storage-ca-file=$backup_ca"
    cat <<END
# When S3 is away for long: beyond this, WAL is given up rather than the disk filled, and a new backup is needed.
archive-push-queue-max=4GiB

[$database]
pg1-path=$data
END
}

btc_assets_env() {
    cat <<END
# Written by setup_timescale.sh; it is written again by the next run. Settings of your own go into host.env.
BTC_ASSETS_HOME=/var/lib/btc-assets
DAGSTER_HOME=/var/lib/btc-assets/dagster
BTC_ASSETS_DSN=postgresql://$loader@/$database?host=/var/run/postgresql
BTC_ASSETS_OWNER_DSN=postgresql://$owner@/$database?host=/var/run/postgresql
BTC_ASSETS_DAGSTER_DSN=postgresql://$dagster@/dagster?host=/var/run/postgresql
BTC_ASSETS_BACKFILL_SLICES_PER_RUN=2016
END
    if [[ $backup_bucket ]]; then
        echo "BTC_ASSETS_BACKUP_STANZA=$database"
        echo 'BTC_ASSETS_PGBACKREST="sudo -n -u postgres /opt/btc-assets/terraform/bootstrap/read_backups.sh"'
    fi
    [[ ! $region ]] || printf '%s\n' "AWS_REGION=$region" "AWS_DEFAULT_REGION=$region"
}
