"""Results: the tree that a run leaves, its identity and its provenance."""

from emcube.results.result import Result, open_result

__all__ = ["Result", "open_result"]
