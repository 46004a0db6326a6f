"""In step with Orthanc: following its change feed, comparing, reporting what changed."""
