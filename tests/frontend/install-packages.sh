#!/usr/bin/env bash
# Install from npm what the examples of docs/front-ends need. Does nothing where it is; run by
# `make test`.
set -euo pipefail
cd "$(dirname "$0")"

installed=node_modules/.package-lock.json
[[ "$installed" -nt package-lock.json ]] && exit 0

if ! command -v npm >/dev/null; then
  echo "npm is missing: the examples of docs/front-ends need Node 20 or newer with npm." >&2
  exit 1
fi
echo "Installing the packages of the front-end examples"
npm ci --ignore-scripts --silent
touch "$installed"
