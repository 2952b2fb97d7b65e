"""A cube or a result as a NeXus file after the application definition NXem, by h5py alone.

What NXem has a place for lies there; all metadata lie beside it as JSON too (``NXcollection``), so that
nothing that is known gets lost. What NXem demands and nobody has stated is not made up: it is listed.

References
----------
NXem and its base classes: https://manual.nexusformat.org/classes/applications/NXem.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.cube import nav_dims, sig_dims, validate_cube
from emcube.cube.schema import axis_units
from emcube.errors import InputError
from emcube.interop.blocks import chunk_layout, copy_regions, whole
from emcube.store import to_json
from emcube.store.layout import Layout

if TYPE_CHECKING:
    import xarray as xr

    from emcube.results import Result

__all__ = ["REQUIRED", "write_nexus"]

ENTRY = "entry1"
#: What NXem demands of each entry, besides what emcube always knows; with what it demands of a measurement.
REQUIRED = (
    "start_time",
    "sample/is_simulation",
    "sample/preparation_date",
    "sample/atom_types",
    "measurement/instrument/fabrication/vendor",
    "measurement/instrument/fabrication/model",
)
_SPACE = ("z", "y", "x")


def write_nexus(
    path: Path,
    *,
    cube: xr.DataArray | None = None,
    result: Result | None = None,
    fields: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Write a cube, a result, or both.

    Parameters
    ----------
    path : Path
        Of the file (``.nxs``).
    cube : xarray.DataArray, optional
    result : Result, optional
        Complete.
    fields : mapping, optional
        Further fields of the entry by their paths, such as ``{"sample/preparation_date":
        "2026-01-31T12:00:00+00:00"}``: texts, numbers, truth values.
    overwrite : bool
        Replace a file.

    Returns
    -------
    list of str
        What the file does not hold, and what NXem demands and nobody has stated.

    Raises
    ------
    InputError
        Neither cube nor result is given, or a field is no plain value.
    IncompleteError
        The result is not complete.
    StoreError
        The file exists or cannot be written.

    Notes
    -----
    One pass over the cube, out of core; chunks of whole signals, compressed with gzip.
    """
    import h5py

    from emcube import __version__

    if cube is None and result is None:
        raise InputError("a NeXus file needs a cube or a result", hint="give one of them")
    cube = None if cube is None else validate_cube(cube)
    if result is not None:
        result.require_complete("an export to NeXus")
    metadata = dict(cube.attrs.get("metadata") or {}) if cube is not None else {}
    if result is not None and not metadata:
        metadata = result.metadata
    lost: list[str] = []
    with whole(path, overwrite=overwrite) as partial, h5py.File(partial, "w") as file:
        file.attrs.update({"NX_class": "NXroot", "default": ENTRY, "creator": "emcube"})
        file.attrs["creator_version"] = __version__
        entry = _group(file, ENTRY, "NXentry")
        _describe(entry, metadata, __version__)
        default: list[str] = []
        if cube is not None:
            default.append(_write_cube(entry, cube, metadata, lost))
        if result is not None:
            default.append(_write_result(entry, result, lost))
        _point_to(file, default[0])
        _set_fields(entry, fields or {})
        lost += _missing(entry)
    return lost


# ------------------------------------------------------------------------------------- groups and fields


def _group(parent: Any, name: str, nx_class: str) -> Any:
    group = parent.require_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def _field(group: Any, name: str, value: Any, units: str | None = None) -> None:
    if value is None or value == "":
        return
    group[name] = (
        np.asarray(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
    )
    if units is not None:
        group[name].attrs["units"] = units


def _describe(entry: Any, metadata: Mapping[str, Any], version: str) -> None:
    """What NXem wants to know of experiment, sample, instrument and program."""
    entry["definition"] = "NXem"
    _field(entry, "title", metadata.get("title"))
    _field(entry, "start_time", _with_zone(metadata.get("acquired")))
    sample = _group(entry, "sample", "NXsample")
    _field(sample, "name", metadata.get("specimen"))
    _field(sample, "atom_types", ", ".join(metadata.get("elements") or ()))
    program = _group(_group(entry, "profiling", "NXcs_profiling"), "program1", "NXprogram")
    program["program"] = "emcube"
    program["program"].attrs["version"] = version
    kept = _group(entry, "metadata", "NXcollection")
    kept["json"] = json.dumps(to_json(metadata), indent=1)
    kept["json"].attrs["description"] = "all metadata of the cube, as emcube keeps them"


def _with_zone(acquired: Any) -> str | None:
    # NeXus wants the offset of the local time; where nobody gave it none is made up.
    return None if not acquired else str(acquired).replace("Z", "+00:00")


def _set_fields(entry: Any, fields: Mapping[str, Any]) -> None:
    for where, value in fields.items():
        plain = isinstance(value, str | int | float | bool | np.generic)
        if not plain or not where.strip("/") or ".." in where.split("/"):
            raise InputError(
                f"fields: {where!r} is {value!r:.60}, expected a path within the entry and a text, a number "
                "or a truth value",
                hint="for example fields={'sample/preparation_date': '2026-01-31T12:00:00+00:00'}",
            )
        if where in entry:
            del entry[where]
        entry[where] = value


def _missing(entry: Any) -> list[str]:
    """What NXem demands of what is there and nobody has stated."""
    return [
        f"NXem demands {name}, which nobody has stated: give it with fields={{{name!r}: ...}}"
        for name in REQUIRED
        if name not in entry and (not name.startswith("measurement/") or "measurement" in entry)
    ]


def _point_to(file: Any, path: str) -> None:
    """Lead programs from the root to what they should draw, group by group."""
    group = file[ENTRY]
    for part in path.split("/"):
        group.attrs["default"] = part
        group = group[part]


# ---------------------------------------------------------------------------------------------- the cube


def _write_cube(
    entry: Any, cube: xr.DataArray, metadata: Mapping[str, Any], lost: list[str]
) -> str:
    """Write the cube into the event of its acquisition; returns the path of its NXdata."""
    measurement = _group(entry, "measurement", "NXem_measurement")
    _instrument(measurement, metadata)
    event = _group(measurement, "event1", "NXem_event_data")
    _field(event, "start_time", _with_zone(metadata.get("acquired")))
    _conditions(event, metadata)
    kind, nx_class, name, axes = _places(cube)
    holder = _group(event, f"{kind}1", nx_class)
    process = _group(holder, "process", "NXprocess")
    process["detector_identifier"] = "detector1"
    source = metadata.get("source") or {}
    if source.get("file"):
        note = _group(process, "input", "NXnote")
        _field(note, "file_name", str(source["file"]))
        _field(note, "type", source.get("format"))
        _field(note, "context", source.get("signal"))
    signal = "real" if kind == "image" and name != "data" else "intensity"
    group = _write_data(holder, name, cube, signal, axes)
    places = {d: f"{group.name}/{axes[d]}" for d in map(str, cube.dims) if d in cube.coords}
    for coord_name, coord in cube.coords.items():
        if coord_name not in cube.dims:
            place = _companion(entry, event, str(coord_name), coord, lost)
            places |= {str(coord_name): place} if place else {}
    _attributes(entry, cube, _layout(entry, cube, f"{group.name}/{signal}", places))
    original = cube.attrs.get("original_metadata")
    if original:
        kept = _group(entry, "original_metadata", "NXcollection")
        kept["json"] = json.dumps(to_json(original), indent=1)
    return f"measurement/event1/{kind}1/{name}"


def _places(cube: xr.DataArray) -> tuple[str, str, str, dict[str, str]]:
    """Where NXem keeps such a cube: kind, class, name of the NXdata, and a name for each axis."""
    nav, sig = nav_dims(cube), sig_dims(cube)
    stack = nav[:1] if nav and nav[0] not in _SPACE else ()
    places = nav[len(stack) :]
    letters = ("axis_k", "axis_j", "axis_i")[3 - len(places) :] if len(places) <= 3 else ()
    named = dict(zip(places, letters, strict=False))
    if sig == ("energy",) and len(named) == len(places):
        prefix = "stack" if stack else "spectrum"
        names = {**{d: d for d in stack}, **named, "energy": "axis_energy"}
        return "spectrum", "NXspectrum", f"{prefix}_{len(places)}d", names
    if not sig and places and len(named) == len(places):
        prefix = "stack" if stack else "image"
        return "image", "NXimage", f"{prefix}_{len(places)}d", {**{d: d for d in stack}, **named}
    if len(sig) == 2 and len(nav) == 2:
        letters4 = ("axis_m", "axis_k", "axis_j", "axis_i")
        return "image", "NXimage", "image_4d", dict(zip(nav + sig, letters4, strict=True))
    # Any other cube is an NXdata of its own dims, which every NeXus reader draws.
    return "spectrum", "NXspectrum", "data", {str(d): str(d) for d in cube.dims}


def _instrument(measurement: Any, metadata: Mapping[str, Any]) -> None:
    instrument = _group(measurement, "instrument", "NXem_instrument")
    _field(instrument, "name", metadata.get("instrument"))
    _group(instrument, "fabrication", "NXfabrication")
    _group(instrument, "ebeam_column", "NXebeam_column")
    found = metadata.get("detector") or {}
    detector = _group(instrument, "detector1", "NXdetector")
    named = found.get("name") or found.get("type") or metadata.get("modality") or "detector"
    _field(detector, "name", str(named))
    _field(detector, "type", found.get("type"))
    for key, name, units in (
        ("energy_resolution_eV", "energy_resolution", "eV"),
        ("azimuth_deg", "azimuthal_angle", "deg"),
        ("elevation_deg", "elevation_angle", "deg"),
        ("solid_angle_sr", "solid_angle", "sr"),
        ("collection_mrad", "collection_semi_angle", "mrad"),
    ):
        _field(detector, name, found.get(key), units)


def _conditions(event: Any, metadata: Mapping[str, Any]) -> None:
    """State of the microscope while the cube was recorded."""
    column = _group(
        _group(event, "instrument", "NXem_instrument"), "ebeam_column", "NXebeam_column"
    )
    if metadata.get("beam_energy_keV") is not None:
        source = _group(column, "electron_source", "NXsource")
        _field(source, "voltage", float(metadata["beam_energy_keV"]), "kV")
        source["probe"] = "electron"
    if metadata.get("dwell_time_s") is not None:
        controller = _group(column, "scan_controller", "NXscan_controller")
        _field(controller, "dwell_time", float(metadata["dwell_time_s"]), "s")
    convergence = (metadata.get("detector") or {}).get("convergence_mrad")
    if convergence is not None:
        optics = _group(event["instrument"], "optics", "NXem_optical_system")
        _field(optics, "semi_convergence_angle", float(convergence), "mrad")
    if metadata.get("tilt_deg") is not None:
        stage = _group(event["instrument"], "stage", "NXmanipulator")
        _field(stage, "tilt1", float(metadata["tilt_deg"]), "deg")
    for key, name in (("live_time_s", "live_time"), ("real_time_s", "real_time")):
        _field(event, name, metadata.get(key), "s")


def _layout(
    entry: Any, cube: xr.DataArray, values: str, places: Mapping[str, str]
) -> dict[str, Any]:
    """What `emcube.io.nexus` needs to put the cube together again: names, and where the arrays lie."""

    def dtype(array: xr.DataArray) -> str:
        return "text" if array.dtype.kind in "OUST" else array.dtype.str

    inside = len(entry.name) + 1
    return {
        "version": 1,
        "name": None if cube.name is None else str(cube.name),
        "dims": list(map(str, cube.dims)),
        "sig_dims": list(sig_dims(cube)),
        "dtype": dtype(cube),
        "units": cube.attrs.get("units"),
        "values": values[inside:],
        "coords": {
            name: {
                "values": place[inside:],
                "dims": list(map(str, cube.coords[name].dims)),
                "dtype": dtype(cube.coords[name]),
            }
            for name, place in places.items()
        },
    }


def _attributes(entry: Any, cube: xr.DataArray, layout: Mapping[str, Any]) -> None:
    """Keep what the cube and its coordinates are said to be and no field of NXem takes."""
    own = ("units", "sig_dims", "metadata", "original_metadata")
    found = {
        "cube": {k: v for k, v in cube.attrs.items() if k not in own},
        "coordinates": {k: dict(c.attrs) for k, c in cube.coords.items() if c.attrs},
        "cube_layout": dict(layout),
    }
    kept = _group(entry, "attributes", "NXcollection")
    kept["json"] = json.dumps(to_json({k: v for k, v in found.items() if v}), indent=1)


def _companion(
    entry: Any, event: Any, name: str, coord: xr.DataArray, lost: list[str]
) -> str | None:
    """Write an image that lies on the cube's grid, or any other coordinate; returns where its values lie."""
    if coord.dtype.kind not in "biuf" or not coord.ndim:
        return _beside(entry, name, coord, lost)
    plain = name.replace("/", "_")
    image = _group(event, f"image_{plain}", "NXimage")
    space = all(str(d) in _SPACE for d in coord.dims) and coord.ndim <= 3
    if not space:
        own = {str(d): str(d) for d in coord.dims}
        return f"{_write_data(image, 'data', coord, 'intensity', own).name}/intensity"
    letters = ("axis_k", "axis_j", "axis_i")[3 - coord.ndim :]
    axes = dict(zip(map(str, coord.dims), letters, strict=True))
    return f"{_write_data(image, f'image_{coord.ndim}d', coord, 'real', axes).name}/real"


def _beside(entry: Any, name: str, coord: xr.DataArray, lost: list[str]) -> str | None:
    """Keep a coordinate that is no image: single values, texts, dates (as texts, ISO 8601)."""
    import h5py

    values = coord.values.astype(str) if coord.dtype.kind in "mM" else coord.values
    if values.dtype.kind not in "biufOUST":
        lost.append(
            f"coordinate {name!r}: {coord.dtype} of dims {coord.dims} has no place in NeXus"
        )
        return None
    kept = _group(entry, "coordinates", "NXcollection")
    plain = name.replace("/", "_")
    if values.dtype.kind in "OUST":
        texts = np.asarray(values, dtype=object).astype(str).astype(object)
        kept.create_dataset(plain, data=texts, dtype=h5py.string_dtype())
    else:
        kept[plain] = values
    kept[plain].attrs["dims"] = json.dumps(list(map(str, coord.dims)))
    if "units" in coord.attrs:
        kept[plain].attrs["units"] = str(coord.attrs["units"])
    return f"{kept.name}/{plain}"


def _write_data(
    parent: Any, name: str, array: xr.DataArray, signal: str, axes: Mapping[str, str]
) -> Any:
    """Write an NXdata: the values under `signal`, and an axis for each dim."""
    group = _group(parent, name, "NXdata")
    dims = list(map(str, array.dims))
    group.attrs["signal"] = signal
    group.attrs["axes"] = [axes[d] for d in dims]
    title = (
        array.attrs.get("long_name")
        or (array.attrs.get("metadata") or {}).get("title")
        or array.name
    )
    _field(group, "title", str(title or name))
    for i, dim in enumerate(dims):
        _write_axis(group, axes[dim], array, dim)
        group.attrs[f"{axes[dim]}_indices"] = np.uint32(i)
        if (
            axes[dim] == dim
            and parent.attrs["NX_class"] == "NXspectrum"
            and name.startswith("stack")
        ):
            group["indices_spectrum"] = np.arange(array.sizes[dim])
            group["indices_spectrum"].attrs["long_name"] = "Spectrum identifier"
    _write_values(group, signal, array)
    return group


def _write_axis(group: Any, name: str, array: xr.DataArray, dim: str) -> None:
    if dim in array.coords and array.coords[dim].dtype.kind in "OUS":
        import h5py

        texts = [str(text) for text in array.coords[dim].values]
        group.create_dataset(name, data=texts, dtype=h5py.string_dtype())
    elif dim in array.coords and array.coords[dim].dtype.kind in "mM":
        group[name] = array.coords[dim].values.astype("int64")
        group[name].attrs["units"] = "ns"
    else:
        values = array.coords[dim].values if dim in array.coords else np.arange(array.sizes[dim])
        group[name] = np.asarray(values)
        group[name].attrs["units"] = axis_units(array, dim)
    group[name].attrs["long_name"] = dim


def _write_values(group: Any, name: str, array: xr.DataArray) -> None:
    import h5py

    values = array.variable
    if not array.ndim or array.dtype.kind in "OUS":
        data = values.values
        texts = array.dtype.kind in "OUS"
        group.create_dataset(name, data=data, dtype=h5py.string_dtype() if texts else None)
    else:
        _copy(group, name, array)
    group[name].attrs["units"] = str(array.attrs.get("units", "1"))
    group[name].attrs["long_name"] = str(
        array.attrs.get("long_name") or array.attrs.get("units") or name
    )


def _copy(group: Any, name: str, array: xr.DataArray) -> None:
    if not array.size:
        group.create_dataset(name, data=np.asarray(array.values))
        return
    layout: Layout = chunk_layout(array.data, len(sig_dims(array)))
    dataset = group.create_dataset(
        name,
        shape=array.shape,
        dtype=np.uint8 if array.dtype == np.bool_ else array.dtype,
        chunks=layout.chunks,
        compression="gzip",
        compression_opts=1,
        shuffle=True,
    )

    def write(region: tuple[slice, ...], block: Any) -> None:
        # HDF5 has no truth values of its own.
        dataset[region] = block.astype(dataset.dtype, copy=False)

    copy_regions(array.data, layout, write)


# ---------------------------------------------------------------------------------------------- a result


def _write_result(entry: Any, result: Result, lost: list[str]) -> str:
    """Write every step as a process of one region of interest; returns the path of the first NXdata."""
    from emcube import __version__

    roi = _group(entry, "roi1", "NXroi_process")
    first = ""
    for number, step in enumerate(result.steps):
        process = _group(roi, step.replace("/", "_"), "NXprocess")
        process["sequence_index"] = number + 1
        program = _group(process, "program1", "NXprogram")
        program["program"] = f"emcube {result.verb(step)}"
        program["program"].attrs["version"] = __version__
        attributes = {k: v for k, v in result[step].attrs.items() if k != "emcube"}
        parameters = _group(process, "parameters", "NXparameters")
        parameters["json"] = json.dumps(to_json(attributes), indent=1)
        for key, array in result[step].data_vars.items():
            _write_variable(process, str(key), array)
            shown = array.ndim and array.dtype.kind in "biuf"
            first = first or (f"roi1/{process.name.rsplit('/', 1)[-1]}/{key}" if shown else "")
    kept = _group(roi, "provenance", "NXcollection")
    kept["run_id"] = result.run_id
    for name, value in (("recipe", result.recipe), ("provenance", result.provenance)):
        kept[name] = json.dumps(to_json(value), indent=1)
    if not first:
        lost.append("the result has no array that a program could draw")
    return first or "roi1/provenance"


def _write_variable(process: Any, key: str, array: xr.DataArray) -> None:
    if not array.ndim:
        process[key] = array.values[()]
        process[key].attrs["units"] = str(array.attrs.get("units", "1"))
        return
    # An axis must not have the name of the values.
    axes = {str(d): f"axis_{d}" if str(d) == "data" else str(d) for d in array.dims}
    _write_data(process, key, array, "data", axes)
