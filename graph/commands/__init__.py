"""The commands of `orthanc-graphql`, one module each; `graph.cli` loads the one asked for."""
