"""Files on their way into Orthanc, in the place of others: a bucket of GridFS."""

REPLACEMENTS = "replacements"
"""Name of the bucket. A file is named after the instance; `metadata.job` is the job, and
`metadata.revision` the revision of the file that it replaces."""

REPLACEMENT_COLLECTIONS = (f"{REPLACEMENTS}.files", f"{REPLACEMENTS}.chunks")
