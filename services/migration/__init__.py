"""Moving in from the system that this server replaces."""
