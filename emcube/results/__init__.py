"""Results: the tree that a run leaves, its identity, its provenance, its pictures and its quality."""

from emcube.results.quality import fit_quality
from emcube.results.result import Result, open_result

__all__ = ["Result", "fit_quality", "open_result"]
