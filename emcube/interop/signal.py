"""A cube in HyperSpy's words: axes, metadata, and the entry that keeps the rest. No HyperSpy, no file."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emcube.cube import sig_dims, validate_cube
from emcube.cube.schema import axis_units
from emcube.io.axes import Axis
from emcube.io.hyperspy import plan_of, tree_metadata
from emcube.io.sidecar import COORDS, CUBE, KEY, VERSION, axis_text, positions
from emcube.store import to_json

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["MAX_TEXT", "SignalTree", "describe_signal", "uniform_axis"]

#: Bytes of a text: attributes of HDF5 hold 64 KiB.
MAX_TEXT = 60_000
#: Bytes of a coordinate: HyperSpy reads metadata whole.
MAX_COORD = 64 * 2**20
#: Scanning microscopes without transmission reach 30 keV, transmission begins at 60 keV.
_SEM_KEV = 50.0

#: What names of groups and attributes cannot hold: paths, and what ends a text in C.
_UNNAMEABLE = re.compile(r"[/\x00\ud800-\udfff]")
_UNWRITABLE = re.compile(r"[\x00\ud800-\udfff]")
_OWN = ("units", "sig_dims", "metadata", "original_metadata")
_TYPES = {"EELS": "EELS", "CL": "CL", "4D-STEM": "electron_diffraction"}
_QUANTITIES = {
    "EDS": "X-rays (Counts)",
    "EELS": "Electrons (Counts)",
    "4D-STEM": "Electrons (Counts)",
}


@dataclass(frozen=True, eq=False)
class SignalTree:
    """What HyperSpy makes a signal from, or writes into a file.

    Attributes
    ----------
    data : array
        Navigation axes, then signal axes; lazy where the cube is.
    axes : tuple of Axis
        In the order of the array.
    metadata, original_metadata : dict
        Nested: texts, numbers, lists, arrays.
    learning : dict
        Attributes of ``learning_results``.
    lost : tuple of str
        What there is no place for, a line each.
    """

    data: Any
    axes: tuple[Axis, ...]
    metadata: dict[str, Any]
    original_metadata: dict[str, Any]
    learning: dict[str, Any] = field(default_factory=dict)
    lost: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Title of the signal."""
        return str(self.metadata["General"]["title"])

    def axis_dicts(self) -> list[dict[str, Any]]:
        """The axes as HyperSpy's constructors and files describe them."""
        return [_axis_dict(axis, self.metadata["Signal"]["quantity"]) for axis in self.axes]


def describe_signal(cube: xr.DataArray, learning: Mapping[str, Any] | None = None) -> SignalTree:
    """Say what a cube is as HyperSpy says it.

    Parameters
    ----------
    cube : xarray.DataArray
        Values are not read; small coordinates are.
    learning : mapping, optional
        Results, as attributes of ``learning_results``.

    Returns
    -------
    SignalTree
        Energies, lengths and angles keep their unit. `lost` lists what neither HyperSpy's own entries nor
        the one of emcube (``metadata.emcube``) can hold.

    Raises
    ------
    CubeError
        The array is not a cube.
    """
    cube = validate_cube(cube)
    lost: list[str] = []
    metadata = dict(cube.attrs.get("metadata") or {})
    axes = tuple(_axis_of(cube, str(dim), metadata.get("modality"), lost) for dim in cube.dims)
    tree = _tree(cube, metadata)
    told = tree_metadata(tree, plan_of(axes, tree))
    entry = _pack(cube, axes, told, lost)
    if entry:
        tree[KEY] = entry
    original = _fitting(
        to_json(cube.attrs.get("original_metadata") or {}), "original_metadata", lost
    )
    tree = _fitting(tree, "metadata", lost)
    return SignalTree(cube.data, axes, tree, original, dict(learning or {}), tuple(lost))


# ------------------------------------------------------------------------------------------------ axes


def uniform_axis(values: NDArray[Any]) -> tuple[float, float] | None:
    """Offset and scale of positions, if these are uniform to a millionth of a step.

    Where the positions are exactly ``offset + scale * i`` for one of the obvious scales, that one is taken.
    """
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        return None
    exact = values.astype(np.float64)
    offset = float(exact[0])
    if exact.size == 1:
        return offset, 1.0
    mean = float((exact[-1] - exact[0]) / (exact.size - 1))
    if mean == 0:
        return None
    index = np.arange(exact.size)
    for scale in (float(f"{mean:.12g}"), float(exact[1] - exact[0]), mean):
        if np.array_equal(offset + scale * index, exact):
            return offset, scale
    return (
        (offset, mean) if np.abs(offset + mean * index - exact).max() <= 1e-6 * abs(mean) else None
    )


def _axis_of(cube: xr.DataArray, dim: str, modality: str | None, lost: list[str]) -> Axis:
    values = np.asarray(cube.coords[dim].values)
    navigate = dim not in sig_dims(cube)
    units = axis_units(cube, dim)
    name = dim
    if dim == "energy":
        name = "Energy loss" if modality == "EELS" else "Energy"
    found = uniform_axis(values)
    if found is None and not _is_ordered(values):
        # HyperSpy's axes are numbers that rise or fall.
        found, units = (0.0, 1.0), "1"
        lost.append(
            f"positions along {dim!r} ({values.dtype}, not rising or falling throughout): on HyperSpy's axis "
            "they are 0 to n-1, and emcube reads them back"
        )
    offset, scale = found or (0.0, 1.0)
    return Axis(
        size=values.size,
        name=name,
        offset=offset,
        scale=scale,
        units="" if units == "1" else units,
        navigate=navigate,
        values=None if found is not None else values.astype(np.float64),
    )


def _is_ordered(values: NDArray[Any]) -> bool:
    if values.dtype.kind not in "iuf":
        return False
    steps = np.diff(values.astype(np.float64))
    return bool((steps > 0).all() or (steps < 0).all())


def _axis_dict(axis: Axis, quantity: str) -> dict[str, Any]:
    common = {
        "name": axis.name,
        "units": axis.units,
        "navigate": bool(axis.navigate),
        # Counts in a channel are an integral over its width.
        "is_binned": "Counts" in quantity and not axis.navigate,
    }
    if axis.values is not None:
        return {"_type": "DataAxis", **common, "axis": axis.values}
    return {
        "_type": "UniformDataAxis",
        **common,
        "size": axis.size,
        "scale": axis.scale,
        "offset": axis.offset,
    }


# -------------------------------------------------------------------------------------------- metadata


def _tree(cube: xr.DataArray, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """HyperSpy's tree: what its specification has a name for."""
    modality = str(metadata.get("modality") or "")
    counts = cube.attrs.get("units") == "counts"
    signal = {
        "signal_type": _signal_type(modality, metadata),
        "quantity": _QUANTITIES.get(modality, "Counts") if counts else "",
    }
    tree: dict[str, Any] = {"General": _general(cube, metadata), "Signal": signal}
    instrument = _instrument(modality, metadata)
    if instrument:
        column = "SEM" if signal["signal_type"] == "EDS_SEM" else "TEM"
        tree["Acquisition_instrument"] = {column: instrument}
    sample = {"elements": list(metadata.get("elements") or ()), "name": metadata.get("specimen")}
    sample = {key: value for key, value in sample.items() if value}
    if sample:
        tree["Sample"] = sample
    return tree


def _signal_type(modality: str, metadata: Mapping[str, Any]) -> str:
    if modality == "EDS":
        beam = metadata.get("beam_energy_keV")
        return "EDS_SEM" if beam is not None and float(beam) <= _SEM_KEV else "EDS_TEM"
    return _TYPES.get(modality, "")


def _general(cube: xr.DataArray, metadata: Mapping[str, Any]) -> dict[str, Any]:
    title = metadata.get("title") or (cube.name if _is_given(cube) else "") or ""
    general: dict[str, Any] = {"title": str(title)}
    if metadata.get("acquired"):
        when = dt.datetime.fromisoformat(str(metadata["acquired"]).replace("Z", "+00:00"))
        general["date"], general["time"] = when.date().isoformat(), when.time().isoformat()
        if when.tzinfo is not None:
            general["time_zone"] = when.isoformat()[-6:]
    source = metadata.get("source") or {}
    if source.get("file"):
        general["original_filename"] = str(source["file"])
    return general


def _is_given(cube: xr.DataArray) -> bool:
    # xarray names an unnamed array after its Dask graph, and stores call every cube "data".
    return cube.name not in (None, "data", getattr(cube.data, "name", None))


def _instrument(modality: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    detector = metadata.get("detector") or {}
    spectral = {
        ("spectrometer" if modality == "EELS" else "detector_type"): detector.get("type"),
        "energy_resolution_MnKa": detector.get("energy_resolution_eV"),
        "azimuth_angle": detector.get("azimuth_deg"),
        "elevation_angle": detector.get("elevation_deg"),
        "collection_angle": detector.get("collection_mrad"),
        "live_time": metadata.get("live_time_s"),
        "real_time": metadata.get("real_time_s"),
    }
    spectral = {key: value for key, value in spectral.items() if value is not None}
    kind = {"EELS": "EELS", "4D-STEM": "Diffraction"}.get(modality, "EDS")
    found: dict[str, Any] = {
        "beam_energy": metadata.get("beam_energy_keV"),
        "microscope": metadata.get("instrument"),
        "convergence_angle": detector.get("convergence_mrad"),
        "dwell_time": metadata.get("dwell_time_s"),
    }
    found = {key: value for key, value in found.items() if value is not None}
    if metadata.get("tilt_deg") is not None:
        found["Stage"] = {"tilt_alpha": metadata["tilt_deg"]}
    if spectral:
        found["Detector"] = {kind: spectral}
    return found


# ------------------------------------------------------------------------------------- emcube's own entry


def _pack(
    cube: xr.DataArray, axes: Sequence[Axis], told: Mapping[str, Any], lost: list[str]
) -> dict[str, Any]:
    """Make the entry that `emcube.io.sidecar` reads; empty where it does not fit."""
    coords: dict[str, Any] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for name, coord in cube.coords.items():
        axis = axes[cube.dims.index(name)] if name in cube.dims else None
        packed = _pack_coord(coord, axis)
        if packed is None:
            lost.append(
                f"coordinate {name!r}: {coord.nbytes} bytes of {coord.dtype}; numbers and texts of at most "
                f"{MAX_COORD} bytes are kept in metadata"
            )
            continue
        described, array = packed
        if array is not None:
            key = str(name) if _is_plain(str(name)) else f"coordinate {len(arrays)}"
            described["array"] = key
            arrays[key] = array
        coords[str(name)] = described
    told = {
        "version": VERSION,
        "dims": list(map(str, cube.dims)),
        "sig_dims": list(sig_dims(cube)),
        "axes": [axis_text(axis) for axis in axes],
        "coords": coords,
        "units": cube.attrs.get("units"),
        "attrs": {str(k): v for k, v in cube.attrs.items() if k not in _OWN},
        "metadata": dict(cube.attrs.get("metadata") or {}),
        "told": dict(told),
    }
    text = json.dumps(to_json(told), ensure_ascii=True)
    if len(text) > MAX_TEXT:
        lost.append(
            "names of dims, exact positions, attributes, coordinates and what HyperSpy has no name for: "
            f"{len(text)} bytes of text, at most {MAX_TEXT} are kept in metadata"
        )
        return {}
    return {CUBE: text, **({COORDS: arrays} if arrays else {})}


def _is_plain(name: str) -> bool:
    """Whether a file can hold an entry of that name."""
    return name.strip(".") != "" and not _UNNAMEABLE.search(name)


def _pack_coord(
    coord: xr.DataArray, axis: Axis | None
) -> tuple[dict[str, Any], NDArray[Any] | None] | None:
    """Describe a coordinate, with its values where they do not follow from the axis; None: does not fit."""
    described: dict[str, Any] = {
        "dims": list(map(str, coord.dims)),
        "attrs": {str(k): v for k, v in coord.attrs.items()},
        "dtype": coord.dtype.str,
        "shape": list(coord.shape),
    }
    uniform = axis is not None and coord.dtype == np.float64 and axis.values is None
    if uniform and np.array_equal(positions(axis), coord.values):  # type: ignore[arg-type]
        return described, None
    if coord.dtype.kind in "OUST":
        texts = np.asarray(coord.values, dtype=object).ravel().tolist()
        if not all(isinstance(text, str) for text in texts):
            return None
        return {**described, "dtype": "text", "values": texts}, None
    if coord.dtype.kind not in "biufmM" or coord.nbytes > MAX_COORD:
        return None
    values = np.asarray(coord.values)
    if values.dtype.kind in "mM":
        values = values.view(np.int64)
    elif values.dtype.kind == "b":
        values = values.view(np.uint8)
    # Arrays without dims have no chunks, and HyperSpy wants chunks when it reads lazily.
    return described, np.ascontiguousarray(values.reshape(values.shape or (1,)))


def _fitting(tree: Mapping[Any, Any], where: str, lost: list[str]) -> dict[str, Any]:
    """A tree without what files cannot hold: long texts, names that are paths."""
    fitting: dict[str, Any] = {}
    for key, value in tree.items():
        name = _UNNAMEABLE.sub("-", str(key))
        if name in ("", ".", "..") or name in fitting:
            lost.append(f"{where}.{key}: a name that no file can hold")
            continue
        if name != key:
            lost.append(
                f"{where}.{key!r:.80}: is called {name!r:.80}, because no name in a file holds that"
            )
        fits, held = _fitting_value(value, f"{where}.{name}", lost)
        if fits:
            fitting[name] = held
    return fitting


def _fitting_value(value: Any, place: str, lost: list[str]) -> tuple[bool, Any]:
    """Whether a file can hold a value, and the value as it holds it."""
    if isinstance(value, Mapping):
        return True, _fitting(value, place, lost)
    if isinstance(value, list | tuple):
        parts = [_fitting_value(part, f"{place}[{i}]", lost) for i, part in enumerate(value)]
        return True, [part for fits, part in parts if fits]
    if isinstance(value, str):
        text = _UNWRITABLE.sub("\ufffd", value)
        if text != value:
            lost.append(
                f"{place}: letters that no text in a file holds (NUL, half pairs of UTF-16)"
            )
        if len(text.encode()) > MAX_TEXT:
            lost.append(f"{place}: {len(text.encode())} bytes of text, at most {MAX_TEXT}")
            return False, None
        return True, text
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        lost.append(f"{place}: the number {value} does not fit 64 bits")
        return False, None
    return True, value
