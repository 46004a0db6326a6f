"""Frames as pictures: signed URLs, rendering, cache, and what protects Orthanc from bad frames."""
