"""Storing files: check, push to Orthanc, index in MongoDB, one result per file."""
