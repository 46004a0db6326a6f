#!/usr/bin/env bash
# Install Chromium for the browser tests from Debian's or Ubuntu's packages. Does nothing where it
# is; run by `make test`.
set -euo pipefail

shell=chromium-headless-shell # opens a page for a sixth of the work of a browser with windows

missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v "${shell}" >/dev/null || missing+=("${shell}")
((${#missing[@]})) || exit 0

as_root() {
  if [[ "$(id -u)" == 0 ]]; then "$@"; else sudo "$@"; fi
}

install() {
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install --yes --no-install-recommends "$@" >/dev/null
}

if ! command -v apt-get >/dev/null; then
  command -v chromium >/dev/null && exit 0
  echo "Chromium is missing, and there is no apt-get here: install it as \`chromium\`." >&2
  exit 1
fi
echo "Installing ${missing[*]}"
as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update || [[ "${missing[0]}" == "${shell}" ]]
# One font: a machine without any shows boxes instead of letters.
[[ "${missing[0]}" == "${shell}" ]] || install chromium fonts-dejavu-core
# A Chromium of another version is not given up for it.
install --no-remove "${shell}" 2>/dev/null || echo "${shell} is not here: the browser tests use chromium alone"
