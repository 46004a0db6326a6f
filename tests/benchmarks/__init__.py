"""Benchmarks: every figure is a ratio beside a rival in the same run. `make bench`."""
