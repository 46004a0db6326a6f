#!/usr/bin/env bash
# Run a command, such as pytest, with another Orthanc as the embedded one:
#
#   test-orthanc.sh ROOT COMMAND...
#
# ROOT is a folder that services/embedded/fetch-orthanc.sh has made, another root file system with
# Orthanc's packages, or a binary, whose plugins lie beside it or where packages put them.
set -euo pipefail

root="${1:?ROOT: a root file system with Orthanc, or its binary}"
shift
if [[ -d "${root}" ]]; then
  here="$(cd "$(dirname "$0")" && pwd)"
  install -m 0755 "${here}/../../services/embedded/unpacked-orthanc.sh" "${root}/Orthanc"
  root="${root}/Orthanc"
fi
ORTHANC_BINARY="$(realpath "${root}")"
export ORTHANC_BINARY
"${ORTHANC_BINARY}" --version | sed -n '1s|.*/|Orthanc under test: |p'
exec "$@"
