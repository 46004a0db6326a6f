"""Frames as pictures: signed URLs, rendering, cache, and quarantine of damaged frames."""
