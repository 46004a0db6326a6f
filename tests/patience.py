"""How long the tests wait for an event."""

PATIENCE_SECONDS = 60.0
"""Ends a test that hangs. It measures nothing: on a busy machine everything takes longer."""
