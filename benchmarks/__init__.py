"""Timings of emcube, and the comparison with HyperSpy: ``python -m benchmarks --help``."""
