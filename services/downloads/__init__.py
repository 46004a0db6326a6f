"""Stored files for readers outside: whole DICOM files, and the documents inside them."""
