#!/usr/bin/env bash
# What the user btc may ask pgBackRest as postgres, by the sudo rule that setup_timescale.sh makes: what there is, and no more.
set -euo pipefail
for argument in "$@"; do
    case $argument in
        --stanza=* | --output=json | --io-timeout=* | info | repo-ls | archive/*) ;;
        *) echo "read_backups.sh: $argument is not for the user btc: call pgbackrest itself, as postgres." >&2 && exit 2 ;;
    esac
done
exec /usr/bin/pgbackrest "$@"
