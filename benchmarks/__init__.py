"""Measurements. Each module is a command that writes its results beside it; see docs/benchmarks.md."""
