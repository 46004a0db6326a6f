"""HTTP routes beside GraphQL; each module exports `routes`."""
