"""The DICOMweb routes (PS3.18): QIDO-RS, WADO-RS and STOW-RS under one prefix."""
