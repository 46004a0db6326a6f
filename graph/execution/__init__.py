"""How an operation runs: limits, authorization, the executor, errors and the audit."""
