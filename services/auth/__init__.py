"""Authentication and authorization: static tokens, JWTs of an OpenID provider, roles, scopes."""
