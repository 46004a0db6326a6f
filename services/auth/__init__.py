"""Who is asking: static tokens, JWTs of an OpenID provider, and what each may do."""
