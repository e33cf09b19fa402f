#!/usr/bin/env bash
# Makes a directory with everything that a host without internet installs, as a signed apt repository; README.md tells what to do with it.
set -euo pipefail
shopt -s lastpipe
umask 022

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=terraform/bootstrap/common.sh
source "$here/common.sh"
# shellcheck source=terraform/bootstrap/packages.sh
source "$here/packages.sh"

usage() {
    cat <<END
Usage: ${0##*/} --key GPG_KEY [options] DIRECTORY

Fetches the packages that setup_timescale.sh installs, with all that they depend on, makes a package btc-assets of this project
and its Python packages, and signs the lot. Run it as root on a machine of the host's distribution, release and architecture that
you throw away afterwards, such as a container: it adds sources of packages. It can be repeated, into the same directory.

  --key GPG_KEY           Your key that signs; the host gets its public half, which is written to DIRECTORY/mirror.asc.
  --postgresql 15|16|17|18
  --without-timescaledb
  --add FILE              One more package, such as amazon-ssm-agent.deb, without which nobody reaches the host; may be repeated.
END
}

key='' postgresql=17 timescaledb=true directory='' added=() package_mirror=''
while (($#)); do
    case $1 in
        --without-timescaledb) timescaledb=false ;;
        --key | --postgresql | --add)
            [[ ${2:-} ]] || die "The option $1 lacks its value: see --help." 2
            case $1 in
                --key) key=$2 ;;
                --postgresql) postgresql=$2 ;;
                --add) added+=("$(file "$1" "$2")") ;;
            esac
            shift
            ;;
        -h | --help) usage && exit ;;
        -*) die "The option $1 is unknown: see --help." 2 ;;
        *) directory=$1 ;;
    esac
    shift
done
[[ $key && $directory ]] || die "A key and a directory are needed: see --help." 2
((EUID == 0)) || die "Only root can add sources of packages: run it as root, on a machine to throw away."
check_distribution
mkdir -p -- "$directory"
directory=$(realpath -- "$directory")
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

begin "Packages"
internet_sources
apt_get install apt-utils gpg gpg-agent "$system_python-venv"
choose_packages
! $timescaledb || [[ $postgresql != 15 ]] || pin_timescaledb
# As if nothing were installed here: what the host's image has of it is not known.
: >"$work/status"
rm -f -- "$directory"/*.deb
mkdir -p "$work/archives/partial"
apt_get -o APT::Sandbox::User=root -o Dir::State::status="$work/status" -o Dir::Cache::archives="$work/archives" --download-only install \
    "${packages[@]}" "$system_python-venv" awscli
mv -- "$work"/archives/*.deb "$directory"
for package in "${added[@]}"; do cp -- "$package" "$directory"; done

begin "btc-assets"
project=$(realpath -- "$here/../..")
stage=$work/stage/opt/btc-assets
mkdir -p "$stage" "$work/stage/DEBIAN"
cp -a -- "$project"/{README.md,pyproject.toml,constraints.txt,btc_assets,sql,terraform,docs} "$stage"
rm -rf -- "$stage"/terraform/{.terraform*,*.tfstate*,terraform.tfvars,backend.hcl}
"$system_python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip wheel --quiet --disable-pip-version-check --wheel-dir "$stage/wheelhouse" \
    --constraint "$project/constraints.txt" "$project"
chown -R root:root "$work/stage"
cat >"$work/stage/DEBIAN/control" <<END
Package: btc-assets
Version: $(sed -n 's/^version = "\(.*\)"$/\1/p' "$project/pyproject.toml")+$(date -u +%Y%m%d%H%M%S)
Architecture: $(dpkg --print-architecture)
Maintainer: whoever signed this repository
Depends: $system_python-venv, awscli
Description: A tick-data store for Bitcoin research, with the script that makes a host of it
END
# The script makes the environment, of the wheels; after an upgrade it makes it again.
printf '%s\n' '#!/bin/sh' 'rm -rf /opt/btc-assets/.venv' >"$work/stage/DEBIAN/postinst"
chmod 0755 "$work/stage/DEBIAN/postinst"
dpkg-deb --root-owner-group --build "$work/stage" "$directory/btc-assets.deb" >/dev/null

begin "Signature"
"$here/sign_packages.sh" "$directory" "$key"
echo "Done: $(find "$directory" -name '*.deb' | wc -l) packages, $(du -sh -- "$directory" | cut -f1). Publish them: aws s3 sync --delete $directory s3://…"
