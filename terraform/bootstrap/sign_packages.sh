#!/usr/bin/env bash
# Makes a directory of packages a signed apt repository, which any web server or bucket can serve; mirror_packages.sh calls it.
# Usage: sign_packages.sh DIRECTORY GPG_KEY
set -euo pipefail
cd -- "$1"
for package in *.deb; do
    # In an object's URL, + and % mean other things than in a file's name.
    safe=${package//[^A-Za-z0-9._-]/-}
    [[ $package == "$safe" ]] || mv -- "$package" "$safe"
done
# Nor is a bucket a file system, in which ./x is x.
apt-ftparchive packages . | sed 's|^Filename: \./|Filename: |' >Packages
gzip --keep --force --best --no-name Packages
rm -f Release InRelease
apt-ftparchive release . >Release
gpg --batch --quiet --local-user "$2" --clearsign --output InRelease Release
gpg --batch --quiet --armor --export "$2" >mirror.asc
rm Release
