"""What faces the outside: GraphQL, HTTP and the command line."""
