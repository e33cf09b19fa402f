#!/usr/bin/env bash
# Makes a Debian or Ubuntu host the store's database server, backups included; README.md tells how and why.
set -euo pipefail
shopt -s lastpipe # `… | put FILE` runs here, so that what it changed is known at the end
umask 022

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=terraform/bootstrap/common.sh
source "$here/common.sh"
# shellcheck source=terraform/bootstrap/packages.sh
source "$here/packages.sh"
# shellcheck source=terraform/bootstrap/settings.sh
source "$here/settings.sh"

usage() {
    cat <<END
Usage: ${0##*/} [options] DATABASE OWNER
       ${0##*/} --install-only [options]

Makes this host a database server: PostgreSQL, TimescaleDB, pgvector, pgBackRest, the database with its roles, its tables.
It can be repeated: it changes only what differs, says what that was, and restarts nothing without need.

Roles: OWNER, DATABASE_loader, DATABASE_reader, and DATABASE_dagster with a database of its own. The operating system's user
btc becomes each of them over the local socket; others need a password, TLS and an address within --allow.

Packages
  --postgresql 15|16|17|18          Major version (17); TimescaleDB stays at 2.28 on 15.
  --without-timescaledb             Plain PostgreSQL, from the distribution where it has what is needed.
  --package-mirror URL              Signed mirror to install from, and from nowhere else (mirror_packages.sh makes one).
  --mirror-key FILE                 Its public key.
  --install-only                    Install packages and btc-assets, as for a machine image, and set nothing up.

Data
  --data-device DEVICE              Mount it at /var/lib/postgresql; it is formatted only if nothing at all lies on it.

Access
  --allow CIDR                      From where roles with a password may connect; may be repeated.
  --password-parameter NAME         SSM parameter with the owner's password,
  --loader-password-parameter NAME  the loader's,
  --reader-password-parameter NAME  the reader's.
  --secrets-from-stdin              Read secrets from standard input instead, a line each: NAME VALUE, where NAME is a role,
                                    backup-cipher, backup-key or backup-key-secret.
  --tls-certificate FILE            Certificate and key for TLS; without them a self-signed one is made once.
  --tls-key FILE

Backups, to S3; none without a bucket
  --backup-bucket NAME
  --backup-prefix PREFIX            Where in the bucket (pgbackrest).
  --backup-cipher-parameter NAME    SSM parameter with the passphrase that encrypts them.
  --backup-endpoint HOST[:PORT]     S3-compatible server instead of AWS; it needs backup-key and backup-key-secret.
  --backup-ca FILE                  Certificate of its authority, where the system does not know it.
  --region REGION                   AWS region of bucket and parameters.

Others
  --memory-mb N, --cpus N           Tune for these rather than what the host has.
  --print-settings                  Print PostgreSQL's settings and end.
  -h, --help                        Print this and end.
END
}

# ---- options

postgresql=17 timescaledb=true package_mirror='' mirror_key='' install_only=false
data_device='' allowed=() secrets_from_stdin=false tls_certificate='' tls_key=''
backup_bucket='' backup_prefix=pgbackrest backup_endpoint='' backup_ca='' region=''
memory_mb='' cpus='' print_settings=false arguments=()
declare -A parameters=() secrets=()
step=''

read_options() {
    while (($#)); do
        case $1 in
            --without-timescaledb) timescaledb=false ;;
            --install-only) install_only=true ;;
            --secrets-from-stdin) secrets_from_stdin=true ;;
            --print-settings) print_settings=true ;;
            -h | --help) usage && exit ;;
            --*)
                [[ $# -ge 2 && $2 != '' ]] || die "The option $1 is unknown or lacks its value: see --help." 2
                read_option "$1" "$2"
                shift
                ;;
            *) arguments+=("$1") ;;
        esac
        shift
    done
}

read_option() {
    case $1 in
        --postgresql) postgresql=$2 ;;
        --package-mirror) package_mirror=$2 ;;
        --mirror-key) mirror_key=$(file "$1" "$2") ;;
        --data-device) data_device=$2 ;;
        --allow) allowed+=("$2") ;;
        --password-parameter) parameters[owner]=$2 ;;
        --loader-password-parameter) parameters[loader]=$2 ;;
        --reader-password-parameter) parameters[reader]=$2 ;;
        --backup-cipher-parameter) parameters[backup-cipher]=$2 ;;
        --tls-certificate) tls_certificate=$(file "$1" "$2") ;;
        --tls-key) tls_key=$(file "$1" "$2") ;;
        --backup-bucket) backup_bucket=$2 ;;
        --backup-prefix) backup_prefix=$2 ;;
        --backup-endpoint) backup_endpoint=$2 ;;
        --backup-ca) backup_ca=$(file "$1" "$2") ;;
        --region) region=$2 ;;
        --memory-mb) memory_mb=$2 ;;
        --cpus) cpus=$2 ;;
        *) die "The option $1 is unknown: see --help." 2 ;;
    esac
}

check_options() {
    [[ $postgresql =~ ^1[5-8]$ ]] || die "PostgreSQL $postgresql is not supported: name 15, 16, 17 or 18." 2
    [[ -z $package_mirror || $mirror_key ]] || die "The mirror $package_mirror needs --mirror-key: packages are not installed unsigned." 2
    # Rounded, so that a kernel that keeps some megabytes more to itself does not change the settings.
    [[ $memory_mb ]] || memory_mb=$(awk '/^MemTotal/ { print int($2 / 1024 / 64) * 64 }' /proc/meminfo)
    [[ $cpus ]] || cpus=$(nproc)
    [[ $memory_mb =~ ^[0-9]{1,8}$ && $cpus =~ ^[0-9]{1,4}$ ]] || die "Give --memory-mb and --cpus whole numbers." 2
    ((memory_mb >= 960)) || die "$memory_mb MB of memory are too little: the store needs a host with 1 GB or more."
    ! $install_only && ! $print_settings || return 0

    [[ ${#arguments[@]} == 2 ]] || die "Name the database and its owner, as in: ${0##*/} btc btc_owner (see --help)." 2
    database=${arguments[0]} owner=${arguments[1]}
    local name
    for name in "$database" "$owner"; do
        [[ $name =~ ^[a-z_][a-z0-9_]{0,50}$ && $name != postgres && $name != template? && $name != dagster ]] ||
            die "The name $name cannot be used: take lower-case letters, digits and _, and none of PostgreSQL's or Dagster's own." 2
    done
    loader=${database}_loader reader=${database}_reader dagster=${database}_dagster
    [[ $owner != "$loader" && $owner != "$reader" && $owner != "$dagster" ]] || die "The owner cannot be $owner: that is another role." 2
    for name in "${allowed[@]}"; do
        [[ $name =~ ^[0-9a-fA-F.:]+/[0-9]{1,3}$ && $name != */0 ]] || die "--allow $name is no range such as 10.20.0.0/24." 2
    done
    [[ ${tls_certificate:+x} == "${tls_key:+x}" ]] || die "--tls-certificate and --tls-key belong together: give both or none." 2
    [[ ${#parameters[@]} == 0 || $region ]] || die "SSM parameters need --region." 2
    [[ -z $backup_bucket || $region ]] || die "Backups to the bucket $backup_bucket need --region." 2
    for name in "$backup_bucket" "$backup_prefix" "$backup_endpoint" "$region" "$data_device" "${parameters[@]}"; do
        [[ $name =~ ^[A-Za-z0-9_./:+=@-]*$ ]] || die "${name@Q} holds a character that no name of AWS or of a device has: correct it." 2
    done
    ! $timescaledb && is_installed "timescaledb-2-postgresql-$postgresql" &&
        die "TimescaleDB is installed for PostgreSQL $postgresql: leave out --without-timescaledb, or remove timescaledb-2-postgresql-$postgresql."
    [[ -z $backup_bucket ]] || require backup-cipher "a passphrase for backups: --backup-cipher-parameter"
    [[ -z $backup_endpoint ]] || require backup-key "keys for $backup_endpoint"
    [[ -z $backup_endpoint ]] || require backup-key-secret "keys for $backup_endpoint"
    if ((${#allowed[@]})); then
        for name in owner loader reader; do require "$name" "a password for the role ${!name}: --password-parameter and the like"; done
    fi
}

require() { # NAME WHAT
    [[ ${parameters[$1]:-} || ${secrets[$1]:-} ]] || die "What is asked for needs $2, or the line with it on standard input." 2
}

read_secrets_from_stdin() {
    local name value
    while read -r name value; do
        case $name in
            '') continue ;;
            backup-cipher | backup-key | backup-key-secret) secrets[$name]=$value ;;
            "${arguments[1]:-}") secrets[owner]=$value ;;
            "${arguments[0]:-}_loader") secrets[loader]=$value ;;
            "${arguments[0]:-}_reader") secrets[reader]=$value ;;
            *) die "A line on standard input names no secret that is known here: see --secrets-from-stdin." 2 ;;
        esac
    done
}

# ---- what is used throughout

directory() { # DIRECTORY MODE OWNER:GROUP
    [[ -d $1 && $(stat -c '%a %U:%G' -- "$1") == "${2#0} $3" ]] && return
    install -d -m "$2" -o "${3%:*}" -g "${3#*:}" -- "$1"
    changed "made $1"
}

as_postgres() { runuser -u postgres -- "$@"; }

sql() { as_postgres psql -XqAt -v ON_ERROR_STOP=1 -p 5432 "$@"; }

# With the settings that the units give to btc-assets.
as_btc() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    runuser -u btc -- bash -c 'cd; set -a; for file in /etc/btc-assets/{host,btc-assets}.env; do [[ ! -r $file ]] || . "$file"; done; exec "$@"' - "$@"
}

# ---- steps

mount_data() {
    begin "Data volume"
    local mount_point=/var/lib/postgresql now device uuid waited=0
    directory $mount_point 0755 postgres:postgres
    [[ $data_device ]] || return 0
    while [[ ! -b $data_device ]]; do # a volume is attached after the host has started
        ((waited++ < 60)) || die "The device $data_device is not there after five minutes: attach the volume and run this again."
        sleep 5
    done
    device=$(realpath -- "$data_device")
    now=$(findmnt -no SOURCE --mountpoint $mount_point || true)
    [[ $now == '' || $now == "$device" ]] || die "$mount_point is $now, not $data_device: unmount it first, or leave out --data-device."
    if [[ ! $now ]]; then
        [[ -z $(ls -A $mount_point) ]] || die "$mount_point holds files that the volume would hide: move them away, or leave out --data-device."
        [[ -z $(findmnt -no TARGET --source "$device") ]] || die "$data_device is mounted elsewhere: unmount it, or name another device."
    fi
    if [[ ! $(blkid -p -o value -s UUID "$device") ]]; then
        # Neither a signature of any kind nor a byte at the start, where raw data would lie.
        if [[ $(wipefs --noheadings "$device") ]] || ! cmp -s -n $((4 << 20)) "$device" /dev/zero; then
            die "$data_device holds something without a file system: it is not formatted; empty it yourself, or name another device."
        fi
        mkfs.ext4 -q -m 1 -L btc-data "$device"
        changed "made a file system on $data_device"
    fi
    uuid=$(blkid -p -o value -s UUID "$device")
    # nofail: without the volume the host must still start, so that it can be looked at; PostgreSQL then has no data and stays down.
    grep -v " $mount_point " /etc/fstab | cat - <(echo "UUID=$uuid $mount_point auto noatime,nofail 0 2") | put /etc/fstab 0644 root:root
    if [[ ! $now ]]; then
        if ! mount $mount_point || ! mountpoint -q $mount_point; then # nofail lets mount keep silent
            die "$data_device cannot be mounted at $mount_point: find out why with mount -v -o defaults UUID=$uuid $mount_point."
        fi
        chown postgres:postgres $mount_point
        changed "mounted $data_device at $mount_point"
    fi
}

check_version() {
    local other
    for other in /var/lib/postgresql/*/main/PG_VERSION; do
        [[ ! -e $other || $(<"$other") == "$postgresql" ]] ||
            die "${other%/*} is a cluster of PostgreSQL $(<"$other"): name that version with --postgresql, or upgrade it with pg_upgradecluster."
    done
}

# Debian's layout without pg_createcluster, which cannot take over a volume whose configuration was on another host.
create_cluster() {
    begin "Cluster $postgresql/main"
    check_version
    directory "${data%/*}" 0755 postgres:postgres
    if [[ ! -e $data/PG_VERSION ]]; then
        rm -rf -- "$data.new" # what a run that was cut off has left
        as_postgres "$binaries/initdb" -D "$data.new" --data-checksums --encoding=UTF8 --locale=C.UTF-8 --auth-local=peer --auth-host=reject >/dev/null
        mv -T -- "$data.new" "$data"
        changed "made $data"
    fi
    "$binaries/pg_controldata" "$data" | grep -q 'page checksum version: *[1-9]' ||
        die "$data has no checksums: stop the cluster, run pg_checksums --enable -D $data as postgres, and run this again."
    directory "/etc/postgresql/$postgresql" 0755 postgres:postgres
    directory "$configuration" 0755 postgres:postgres
    directory "$configuration/conf.d" 0755 postgres:postgres
    [[ -e $configuration/postgresql.conf ]] || cluster_conf | put "$configuration/postgresql.conf" 0644 postgres:postgres
    [[ -e $configuration/start.conf ]] || echo auto | put "$configuration/start.conf" 0644 postgres:postgres
}

certificate() {
    # On the data volume, so that clients that trust it go on when the host is replaced.
    directory "$tls" 0700 postgres:postgres
    if [[ $tls_certificate ]]; then
        put "$tls/server.key" 0600 postgres:postgres <"$tls_key"
        put "$tls/server.crt" 0644 postgres:postgres <"$tls_certificate"
    elif [[ ! -e $tls/server.crt ]]; then
        local name
        name=$(hostname --fqdn 2>/dev/null || hostname)
        as_postgres openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=${name:0:64}" \
            -addext "subjectAltName=DNS:$name" -keyout "$tls/server.key" -out "$tls/server.new" 2>/dev/null
        mv -- "$tls/server.new" "$tls/server.crt"
        changed "made a self-signed certificate for $name"
    fi
}

configure() {
    begin "Configuration"
    local read_at
    certificate
    postgresql_conf | put "$configuration/conf.d/btc-assets.conf" 0644 postgres:postgres
    pg_hba_conf | put "$configuration/pg_hba.conf" 0640 postgres:postgres
    pg_ident_conf | put "$configuration/pg_ident.conf" 0640 postgres:postgres
    if [[ $backup_bucket ]]; then pgbackrest_conf | put /etc/pgbackrest.conf 0640 root:postgres; fi
    # 9 is the lock of this script, which must not outlive it.
    if ! pg_ctlcluster "$postgresql" main status >/dev/null; then
        pg_ctlcluster "$postgresql" main start 9>&-
        changed "started PostgreSQL $postgresql"
    fi
    # Asked from the server, because a run that was cut off may have left files that it has not read.
    read_at=$(sql -d postgres -c "SELECT pg_conf_load_time()")
    if [[ $(find "$configuration" "$tls" -type f -newermt "$read_at") ]]; then
        pg_ctlcluster "$postgresql" main reload
        while [[ $(sql -d postgres -c "SELECT pg_conf_load_time()") == "$read_at" ]]; do sleep 0.1; done
        changed "had PostgreSQL read its configuration"
    fi
    if [[ $(sql -d postgres -c 'SELECT count(*) FROM pg_settings WHERE pending_restart') != 0 ]]; then
        pg_ctlcluster "$postgresql" main restart 9>&-
        changed "restarted PostgreSQL $postgresql"
    fi
}

make_roles() {
    begin "Roles and databases"
    bring_about postgres "$here/roles.sql"
    bring_about "$database" "$here/database.sql"
    local role
    for role in owner loader reader; do
        [[ ! ${secrets[$role]:-} ]] || printf '%s %s\n' "${!role}" "${secrets[$role]}"
    done | as_postgres "$python" "$here/set_passwords.py" | while read -r role; do changed "set the password of $role"; done
}

# Run the statements that a query finds missing, until it finds none.
bring_about() { # DATABASE FILE
    local statements statement round
    for round in 1 2 3 4; do
        statements=$(sql -d "$1" -v database="$database" -v owner="$owner" -v loader="$loader" -v reader="$reader" \
            -v dagster="$dagster" -v timescaledb="$timescaledb" -f "$2")
        [[ $statements ]] || return 0
        while read -r statement; do
            sql -d "$1" <<<"$statement"
            changed "$statement"
        done <<<"$statements"
    done
    die "A statement has no effect in round $round: $statement"
}

make_user() {
    begin "User btc"
    if ! id btc >/dev/null 2>&1; then
        useradd --system --user-group --home-dir /var/lib/btc-assets --shell /usr/sbin/nologin btc
        changed "made the user btc"
    fi
    directory /var/lib/btc-assets 0750 btc:btc
    directory /etc/btc-assets 0755 root:root
    btc_assets_env | put /etc/btc-assets/btc-assets.env 0640 root:btc
    if [[ $backup_bucket ]]; then
        echo "btc ALL=(postgres) NOPASSWD: /opt/btc-assets/terraform/bootstrap/read_backups.sh" | put /etc/sudoers.d/btc-assets 0440 root:root
    fi
}

migrate() {
    begin "Tables"
    # Both compare first; what they say is what they did.
    as_btc "$btc_assets" db migrate
    as_btc "$btc_assets" db grant --loader "$loader" --reader "$reader"
}

back_up() {
    [[ $backup_bucket ]] || return 0
    begin "Backups"
    local pgbackrest=(as_postgres pgbackrest "--stanza=$database") status code tries=0
    status=$("${pgbackrest[@]}" --output=json info | "$python" -c 'import json, sys; print(json.load(sys.stdin)[0]["status"]["code"])')
    case $status in
        0)
            [[ " ${changes[*]} " != *" /etc/pgbackrest.conf "* ]] || "${pgbackrest[@]}" check
            return
            ;;
        [1-3]) ;; # there is no stanza, or none with a backup
        *) die "pgBackRest cannot use the bucket $backup_bucket: run \"sudo -u postgres pgbackrest info\", mend what it says and run this again." ;;
    esac
    # 50: the server tries to archive at this moment, and holds the lock.
    while code=0 && { "${pgbackrest[@]}" stanza-create || code=$?; } && ((code == 50 && tries++ < 30)); do sleep 1; done
    ((code == 0)) ||
        die "The bucket $backup_bucket does not take this cluster's backups below $backup_prefix: if another cluster's lie there, name another --backup-prefix."
    "${pgbackrest[@]}" check
    "${pgbackrest[@]}" --type=full backup
    changed "took the first full backup"
}

enable_units() {
    begin "Units"
    local unit
    for unit in "$here"/systemd/*; do
        [[ $unit == */btc-backup-* && ! $backup_bucket ]] ||
            [[ $unit == */btc-backup-metrics.* && $(cat /etc/btc-assets/host.env 2>/dev/null) != *METRIC_NAMESPACE=* ]] ||
            put "/etc/systemd/system/${unit##*/}" 0644 root:root <"$unit"
    done
    if [[ ! -d /run/systemd/system ]]; then
        echo "  systemd does not run here: the units are in place, but not started"
        return
    fi
    systemctl daemon-reload
    for unit in /etc/systemd/system/btc-*; do
        if grep -q '^\[Install\]' "$unit" && ! systemctl is-enabled --quiet "${unit##*/}"; then
            systemctl enable --now --quiet "${unit##*/}"
            changed "enabled ${unit##*/}"
        fi
    done
    [[ " ${changes[*]} " != *" /etc/btc-assets/btc-assets.env "* ]] || systemctl try-restart 'btc-dagster-*'
    systemctl restart btc-live # host.env says whether it may start, and others write that; nothing is lost by it
}

# ---- all of it

main() {
    read_options "$@"
    ! $secrets_from_stdin || read_secrets_from_stdin
    check_options
    if $print_settings; then
        postgresql_conf
        exit
    fi
    ((EUID == 0)) || die "Only root can set up a host: run it with sudo."
    check_distribution
    exec 9>/run/lock/btc-assets-setup.lock
    flock -n 9 || die "Another run is under way: wait for its end."
    trap '[[ $? == 0 || ! $step ]] || echo "${0##*/}: It failed at \"$step\" for the reason above: mend that and run this again." >&2' EXIT
    cd /

    $install_only || check_version # here for a volume that is mounted, and again for one that is mounted below
    install_packages
    project=$(realpath -- "$here/../..")
    btc_assets=/opt/btc-assets/.venv/bin/btc-assets python=/opt/btc-assets/.venv/bin/python
    install_btc_assets
    ! $install_only || exit 0

    begin "Secrets"
    local name
    for name in "${!parameters[@]}"; do secrets[$name]=$(read_parameter "${parameters[$name]}"); done
    for name in "${!secrets[@]}"; do
        LC_ALL=C
        [[ ${secrets[$name]} =~ ^[!-~]{8,}$ && ($name == backup-key* || ${#secrets[$name]} -ge 16) ]] ||
            die "The secret $name must be 16 or more printable ASCII characters without blanks: put another."
    done
    binaries=/usr/lib/postgresql/$postgresql/bin
    configuration=/etc/postgresql/$postgresql/main
    data=/var/lib/postgresql/$postgresql/main
    tls=/var/lib/postgresql/tls
    mount_data
    make_user
    create_cluster
    configure
    make_roles
    migrate
    back_up
    enable_units
    if ((${#changes[@]})); then echo "Done, with ${#changes[@]} changes."; else echo "Done: everything was as it should be, nothing was changed."; fi
}

read_parameter() { # NAME
    AWS_DEFAULT_REGION=$region "$python" - "$1" <<'END' || die "The SSM parameter $1 cannot be read: put it there, and give this host the right to read it."
import sys

import boto3

try:
    sys.stdout.write(boto3.client("ssm").get_parameter(Name=sys.argv[1], WithDecryption=True)["Parameter"]["Value"])
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
END
}

main "$@"
