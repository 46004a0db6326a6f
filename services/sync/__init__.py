"""Keeps the index in step with Orthanc: change feed, comparison, events."""
