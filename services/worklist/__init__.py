"""The modality worklist: planned examinations, served to scanners."""
