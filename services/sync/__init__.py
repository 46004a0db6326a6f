"""In step with Orthanc: following its change feed, comparing, telling what changed."""
