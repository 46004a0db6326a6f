"""DICOM applications of the network: declared here, searched, fetched from and sent to."""
