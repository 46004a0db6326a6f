"""DICOMweb (PS3.18) over the index: searches, resources by their UIDs, and what was stored."""
