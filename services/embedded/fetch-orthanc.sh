#!/usr/bin/env bash
# Unpack the Orthanc of another release of Debian, with everything that it needs, into a folder:
#
#   services/embedded/fetch-orthanc.sh sid .orthanc
#
# It needs apt (Debian, Ubuntu) and no root. Nothing is installed, and nothing outside of the folder
# changes. FOLDER/Orthanc runs it: name it in ORTHANC_BINARY. Running the script again updates it.
set -euo pipefail

suite="${1:?the name of a release of Debian, as trixie or sid}"
root="${2:?a folder}"
mirror="${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
keys="${DEBIAN_KEYS:-/usr/share/keyrings/debian-archive-keyring.gpg}"
here="$(cd "$(dirname "$0")" && pwd)"

if ! command -v apt-get >/dev/null || [[ ! -r "${keys}" ]]; then
  echo "This needs apt-get and ${keys} (package debian-archive-keyring)." >&2
  exit 1
fi
work="$(mktemp -d)"
trap 'rm -rf "${work}"' EXIT
mkdir -p "${work}"/{lists/partial,archives/partial,none,root}
touch "${work}/status"
echo "deb [signed-by=${keys}] ${mirror} ${suite} main" >"${work}/sources.list"

# An apt of its own: with an empty list of what is installed it fetches all dependencies.
own_apt() {
  apt-get -qq \
    -o "Dir::State=${work}" -o "Dir::State::lists=${work}/lists" \
    -o "Dir::State::status=${work}/status" \
    -o "Dir::Cache=${work}" -o "Dir::Cache::archives=${work}/archives" \
    -o "Dir::Etc::sourcelist=${work}/sources.list" -o "Dir::Etc::sourceparts=${work}/none" \
    -o "Dir::Etc::preferencesparts=${work}/none" \
    -o "APT::Sandbox::User=$(id -un)" -o Debug::NoLocking=true "$@"
}

own_apt update
own_apt install --download-only --yes --no-install-recommends \
  orthanc orthanc-dicomweb orthanc-gdcm >/dev/null
for package in "${work}"/archives/*.deb; do
  dpkg-deb --extract "${package}" "${work}/root"
done
install -m 0755 "${here}/unpacked-orthanc.sh" "${work}/root/Orthanc"
"${work}/root/Orthanc" --version | sed -n '1s|.*/|Fetched |p'
rm -rf "${root}"
mv "${work}/root" "${root}"
