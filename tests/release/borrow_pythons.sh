#!/usr/bin/env bash
# Unpack Pythons that this machine lacks, from Debian's next release:
#     borrow_pythons.sh FOLDER VERSION...
# They come to FOLDER/usr/bin, with libraries of their own, and beside this system's programs.
# Nothing is installed, so no privilege is needed, but apt, which knows a mirror and checks
# signatures, and patchelf.  Says which cannot be had, and why.
set -euo pipefail
shopt -s nullglob
release=forky
folder=$1
shift
command -v apt-get >/dev/null || { echo "no Python $*: they come from Debian, by apt-get"; exit; }

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Created-By: Packages' | head -n 1)
mkdir -p "$folder"/apt/{lists,cache/archives}/partial
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] $mirror $release main" >"$folder/apt/sources.list"
# An apt that knows of nothing but this release, and of no package that is installed.
apt() {
  apt-get -qq -o Dir::Etc::SourceList="$folder/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists="$folder/apt/lists" -o Dir::State::Status=/dev/null \
    -o Dir::Cache="$folder/apt/cache" -o Debug::NoLocking=true -o APT::Sandbox::User=root "$@"
}
apt update || { echo "no Python $*: there is no $release at $mirror"; exit; }
for version in "$@"; do
  apt install --yes --no-install-recommends --download-only "python$version" ||
    echo "no Python $version: $release does not have it"
done
for package in "$folder"/apt/cache/archives/*.deb; do
  dpkg-deb -x "$package" "$folder"
done
for version in "$@"; do
  python=$folder/usr/bin/python$version
  [ ! -e "$python" ] || patchelf --set-interpreter "$(echo "$folder"/usr/lib/*/ld-linux*.so.*)" \
    --force-rpath --set-rpath "$(echo "$folder"/usr/lib/*-linux-*)" "$python"
done
rm -r "$folder/apt"
