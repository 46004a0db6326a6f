"""Whether this process and what it depends on are well."""
