#!/usr/bin/env bash
# Install what the embedded stores and the tests need from Debian's or Ubuntu's packages: Orthanc
# with its DICOMweb and GDCM plugins, libcurl for MongoDB, DCMTK's command line tools.
#
# Does nothing where they are, or where ORTHANC_URL names another Orthanc to use. Run by `make
# setup`; safe to run again. `install-orthanc.sh describe` installs nothing and says what is there.
set -euo pipefail

packages=(orthanc orthanc-dicomweb orthanc-gdcm dcmtk libcurl4 util-linux)

orthanc_is_there() {
  [[ -n "${ORTHANC_BINARY:-}" && -x "${ORTHANC_BINARY}" ]] || [[ -x /usr/sbin/Orthanc ]] ||
    command -v Orthanc >/dev/null
}

missing() {
  orthanc_is_there || echo Orthanc
  command -v storescu >/dev/null || echo DCMTK
}

as_root() {
  if [[ "$(id -u)" == 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    echo "Neither root nor sudo: ask an administrator for: apt-get install ${packages[*]}" >&2
    return 1
  fi
}

has_systemd() {
  [[ -d /run/systemd/system ]] && command -v systemctl >/dev/null
}

install_packages() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install --yes --no-install-recommends "${packages[@]}" >/dev/null
}

# The package starts a service of its own on ports 8042 and 4242, with no password. One that was
# here before is somebody's and stays.
stop_new_service() {
  if has_systemd; then
    as_root systemctl disable --now --quiet orthanc.service
  fi
}

# Say which Orthanc the server will run, in the order in which it looks for one, and whether there is
# a better one.
describe() {
  local binary release oldest_safe=1.12.11
  for binary in "${ORTHANC_BINARY:-}" /usr/sbin/Orthanc /usr/local/sbin/Orthanc \
    "$(command -v Orthanc || true)"; do
    if [[ -x "${binary}" ]]; then break; fi
  done
  if [[ ! -x "${binary}" ]]; then return; fi
  release="$("${binary}" --version | sed -n '1s|.*Orthanc ||p')"
  echo "Orthanc ${release} (${binary})"
  if [[ "${release}" =~ ^[0-9.]+$ ]] &&
    [[ "$(printf '%s\n' "${release}" "${oldest_safe}" | sort -V | head -1)" != "${oldest_safe}" ]]; then
    echo "It has known vulnerabilities. Get a newer one for this server alone: make newer-orthanc"
  fi
}

main() {
  local wanted was_here=no
  [[ -z "${ORTHANC_URL:-}" ]] || return 0
  if [[ "${1:-}" == describe ]]; then
    describe
    return
  fi
  wanted="$(missing | paste -sd ' ')"
  [[ -n "${wanted}" ]] || return 0
  if ! command -v apt-get >/dev/null; then
    echo "Missing: ${wanted}. There is no apt-get here: install Orthanc 1.10.1 or newer by hand," \
      "set ORTHANC_URL to use another Orthanc, or use compose.yaml." >&2
    # DCMTK is for the tests alone: the server runs without.
    orthanc_is_there
    return
  fi
  echo "Installing ${packages[*]}"
  if orthanc_is_there; then was_here=yes; fi
  install_packages
  if [[ "${was_here}" == no ]]; then stop_new_service; fi
  describe
}

main "$@"
