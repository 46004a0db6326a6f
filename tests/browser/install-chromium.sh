#!/usr/bin/env bash
# Install Chromium for the browser tests from Debian's or Ubuntu's packages. Does nothing where it
# is; run by `make test`.
set -euo pipefail

command -v chromium >/dev/null && exit 0

as_root() {
  if [[ "$(id -u)" == 0 ]]; then "$@"; else sudo "$@"; fi
}

if ! command -v apt-get >/dev/null; then
  echo "Chromium is missing, and there is no apt-get here: install it as \`chromium\`." >&2
  exit 1
fi
echo "Installing chromium"
as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update
# One font: a machine without any shows boxes instead of letters.
as_root env DEBIAN_FRONTEND=noninteractive \
  apt-get -qq install --yes --no-install-recommends chromium fonts-dejavu-core >/dev/null
