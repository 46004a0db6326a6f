"""The commands of `orthanc-graphql`, one module each; `graph.cli` imports the called one."""
