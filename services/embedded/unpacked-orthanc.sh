#!/usr/bin/env bash
# Run the Orthanc of the folder in which this script lies, a root file system or unpacked packages,
# with the libraries of that folder.
set -euo pipefail
shopt -s nullglob

root="$(dirname "$(realpath "$0")")"
loaders=("${root}"/usr/lib/*-linux-gnu*/ld-linux-*.so.* "${root}"/lib/*-linux-gnu*/ld-linux-*.so.*)
libraries=("${root}"/usr/lib/*-linux-gnu* "${root}"/lib/*-linux-gnu* "${root}"/usr/lib "${root}"/lib)
if ((${#loaders[@]} == 0)) || [[ ! -x "${root}/usr/sbin/Orthanc" ]]; then
  echo "${root} has no Orthanc with its libraries." >&2
  exit 1
fi
# The dictionaries of DCMTK: Debian's Orthanc reads them from files.
dictionaries=("${root}"/usr/share/{dcmtk,libdcmtk*}/{dicom,private}.dic)
DCMDICTPATH="$(IFS=:; echo "${dictionaries[*]}")"
export DCMDICTPATH
# As its name in the list of processes, that of the program and not of its loader.
exec -a "${root}/usr/sbin/Orthanc" "${loaders[0]}" \
  --library-path "$(IFS=:; echo "${libraries[*]}")" "${root}/usr/sbin/Orthanc" "$@"
