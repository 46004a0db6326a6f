"""Who is asking: static tokens from a file of hashes, and JWTs of an OpenID provider."""
