# shellcheck shell=bash disable=SC2154 # the options are setup_timescale.sh's
# Which packages, and where they come from; read by setup_timescale.sh and mirror_packages.sh.

check_distribution() {
    # shellcheck source=/dev/null
    distribution=$(. /etc/os-release && echo "$ID") codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    system_python=python3
    case $distribution/$codename in
        debian/bookworm | debian/trixie | ubuntu/noble | ubuntu/resolute) ;;
        ubuntu/jammy) system_python=python3.11 ;; # its own is older than btc-assets needs
        *) die "$distribution $codename is not supported: take Debian 12 or 13, or Ubuntu 22.04, 24.04 or 26.04." ;;
    esac
}

is_installed() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

choose_packages() {
    packages=("postgresql-$postgresql" "postgresql-$postgresql-pgvector" pgbackrest openssl sudo mount e2fsprogs ca-certificates)
    ! $timescaledb || packages+=("timescaledb-2-postgresql-$postgresql")
}

install_packages() {
    begin "Packages"
    local package
    choose_packages
    [[ -x /opt/btc-assets/.venv/bin/btc-assets ]] || packages+=("$system_python-venv")
    # A cluster is made later, where the data is to lie.
    mkdir -p /etc/postgresql-common/createcluster.d
    echo "create_main_cluster = false" | put /etc/postgresql-common/createcluster.d/btc-assets.conf 0644 root:root
    ! $timescaledb || [[ $postgresql != 15 ]] || pin_timescaledb
    for package in "${packages[@]}"; do is_installed "$package" || break; done
    if ! is_installed "$package"; then
        if [[ $package_mirror ]]; then mirror_source; else internet_sources; fi
        apt_get update
        apt_get install "${packages[@]}"
        changed "installed what was missing of: ${packages[*]}"
    fi
    if $timescaledb && [[ $postgresql == 15 && $(apt-mark showhold) != *timescaledb-2-postgresql-15* ]]; then
        apt-mark -qq hold timescaledb-2-postgresql-15 timescaledb-2-loader-postgresql-15
        changed "held TimescaleDB at 2.28"
    fi
}

# 2.29 does not know PostgreSQL 15 any more.
pin_timescaledb() {
    put /etc/apt/preferences.d/btc-assets-timescaledb 0644 root:root <<'END'
Package: timescaledb-2-postgresql-15 timescaledb-2-loader-postgresql-15
Pin: version 2.28.*
Pin-Priority: 1001

Package: timescaledb-2-postgresql-15 timescaledb-2-loader-postgresql-15
Pin: version *
Pin-Priority: -1
END
}

apt_get() {
    local sources=()
    # From the mirror alone: whatever else the host knows cannot be reached, and would be waited for.
    [[ ! $package_mirror ]] || sources=(-o Dir::Etc::SourceList=/etc/apt/sources.list.d/btc-assets.sources -o Dir::Etc::SourceParts=/dev/null)
    DEBIAN_FRONTEND=noninteractive apt-get -qq --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
        -o APT::Update::Error-Mode=any "${sources[@]}" "$@" >/dev/null
}

mirror_source() {
    local key=/etc/apt/keyrings/btc-assets.gpg
    [[ $(head -c 10 "$mirror_key") != -----BEGIN ]] || key=${key%.gpg}.asc
    mkdir -p /etc/apt/keyrings
    put "$key" 0644 root:root <"$mirror_key"
    printf '%s\n' "Types: deb" "URIs: $package_mirror" "Suites: /" "Signed-By: $key" | put /etc/apt/sources.list.d/btc-assets.sources 0644 root:root
}

internet_sources() {
    apt_get update
    apt_get install ca-certificates
    # The distribution's own are the better kept ones, but it has one version; Timescale builds for PGDG's.
    ! $timescaledb && distribution_has "postgresql-$postgresql" 0 && distribution_has "postgresql-$postgresql-pgvector" 0.8 && return

    apt_get install postgresql-common curl gpg
    local key=/usr/share/postgresql-common/pgdg/apt.postgresql.org.asc
    echo "deb [signed-by=$key] https://apt.postgresql.org/pub/repos/apt $codename-pgdg main" | put /etc/apt/sources.list.d/pgdg.list 0644 root:root
    $timescaledb || return 0
    key=/etc/apt/keyrings/timescale.asc
    mkdir -p /etc/apt/keyrings
    curl --fail --silent --show-error --location --proto '=https' https://packagecloud.io/timescale/timescaledb/gpgkey |
        put "$key" 0644 root:root
    holds_only_key "$key" 1005FB68604CE9B8F6879CF759F18EDF47F24417 ||
        die "The key of Timescale's packages is not the one that is known here: find out why, then correct it in packages.sh."
    echo "deb [signed-by=$key] https://packagecloud.io/timescale/timescaledb/$distribution/ $codename main" |
        put /etc/apt/sources.list.d/timescaledb.list 0644 root:root
}

holds_only_key() { # FILE FINGERPRINT: apt trusts every key of a file, so it must hold this one and no other
    local primary
    primary=$(gpg --batch --show-keys --with-colons "$1" | awk -F: '$1 == "pub" || $1 == "sec" { wanted = 1 } $1 == "fpr" && wanted { print $10; wanted = 0 }')
    [[ $primary == "$2" ]]
}

distribution_has() { # PACKAGE VERSION: that one or a later one
    local version
    version=$(apt-cache show --no-all-versions "$1" 2>/dev/null | sed -n 's/^Version: //p')
    [[ $version ]] && dpkg --compare-versions "$version" ge "$2"
}

install_btc_assets() {
    begin "btc-assets"
    [[ ! -x $btc_assets ]] || return 0
    [[ -e $project/pyproject.toml && $project == /opt/btc-assets ]] ||
        die "btc-assets is not installed: put a checkout at /opt/btc-assets and run the script that lies in it."
    # Aside first: a run that was cut off must not leave half of one.
    rm -rf -- "$project/.venv"
    "$system_python" -m venv "$project/.venv"
    local pip=("$python" -m pip install --quiet --disable-pip-version-check --no-cache-dir)
    if [[ -d $project/wheelhouse ]]; then # from the mirror, because there is no other source
        "${pip[@]}" --no-index --find-links "$project/wheelhouse" btc-assets
    else
        "${pip[@]}" --constraint "$project/constraints.txt" "$project"
    fi
    changed "installed btc-assets"
}
