"""What a labelled cube is: schema, metadata, construction, selection and the ``.em`` accessor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emcube.cube.accessor import EmAccessor
from emcube.cube.construct import chunk_shape, make_cube
from emcube.cube.reduce import smoothed_counts, sum_spectrum, total_counts
from emcube.cube.schema import get_metadata, infer_sig_dims, nav_dims, sig_dims, validate_cube
from emcube.cube.select import channel_slice, resolve_where

if TYPE_CHECKING:
    from emcube.cube.metadata import Detector, Metadata, Source

__all__ = [
    "Detector",
    "EmAccessor",
    "Metadata",
    "Source",
    "channel_slice",
    "chunk_shape",
    "get_metadata",
    "infer_sig_dims",
    "make_cube",
    "nav_dims",
    "resolve_where",
    "sig_dims",
    "smoothed_counts",
    "sum_spectrum",
    "total_counts",
    "validate_cube",
]


def __getattr__(name: str) -> Any:
    # pydantic loads only when somebody asks for the typed metadata.
    if name in ("Detector", "Metadata", "Source"):
        from emcube.cube import metadata

        return getattr(metadata, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
