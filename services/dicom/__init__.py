"""DICOM bytes to facts: headers, values, safety checks, windowing. Pure, without network."""
