"""What the system does, without an HTTP server and without GraphQL."""
