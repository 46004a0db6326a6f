"""Files on their way into Orthanc, in the place of others: a bucket of GridFS."""

REPLACEMENTS = "replacements"
"""Name of the bucket. A file is named after the instance, and has the job as `metadata.job`."""

REPLACEMENT_COLLECTIONS = (f"{REPLACEMENTS}.files", f"{REPLACEMENTS}.chunks")
