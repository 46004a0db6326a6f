"""The web page: files as they are, and the Python that hands them out."""
