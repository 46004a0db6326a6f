"""Jobs: long work in the background, kept in MongoDB, run by one process at a time."""
