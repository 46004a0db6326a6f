"""HTTP: the server, its middleware, the GraphQL endpoint, uploads and WebSockets."""
