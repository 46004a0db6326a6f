"""Every part that the server needs, examined one by one, with what to do about each."""
