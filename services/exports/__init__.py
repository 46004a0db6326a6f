"""Studies packed for download, or into a folder of the server."""
