"""Component spectra, or any single spectra, as EMSA/MAS files (``.msa``).

The values are written with all their digits, and what the format has no keyword for goes into lines
``##EMCUBE...``, which the standard leaves to programs: emcube reads back what it wrote, other programs
read a spectrum.

References
----------
ISO 22029:2022, EMSA/MAS standard file format for spectral-data exchange.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emcube.cube import nav_dims, sig_dims, validate_cube
from emcube.cube.schema import axis_units
from emcube.errors import InputError
from emcube.interop.blocks import whole
from emcube.interop.signal import uniform_axis
from emcube.io.msa import ENTRY_VERSION, header_metadata
from emcube.store import to_json

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["MAX_SPECTRA", "write_spectra"]

#: Files that one call writes at most: an image of spectra is no case for text.
MAX_SPECTRA = 1000
_TITLE = 64
_WIDTH = 60
_TYPES = {"EDS": "EDS", "EELS": "ELS", "WDS": "WDS", "XRF": "XRF", "CL": "CLS"}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_SCALARS = "biufOU"
_OWN = ("units", "sig_dims", "metadata", "original_metadata")


def write_spectra(
    spectra: xr.DataArray, path: Path, *, overwrite: bool = False
) -> tuple[list[Path], list[str]]:
    """Write spectra, a file each.

    Parameters
    ----------
    spectra : xarray.DataArray
        One spectrum, or some along navigation dims (``component``).
    path : Path
        Of the file; several get their number before the suffix: ``nmf-0.msa``, ``nmf-1.msa``.
    overwrite : bool
        Replace files.

    Returns
    -------
    files : list of Path
    lost : list of str
        What the files do not hold.

    Raises
    ------
    InputError
        There is not one signal dim of numbers, or there are more than `MAX_SPECTRA` spectra.
    StoreError
        A file exists or cannot be written.
    """
    spectra = validate_cube(spectra)
    sig, nav = sig_dims(spectra), nav_dims(spectra)
    if len(sig) != 1 or spectra.coords[sig[0]].dtype.kind not in "iuf":
        raise InputError(
            f"spectra have one signal dim of numbers: got signal dims {sig}",
            hint="write cubes and patterns to .hspy, .zspy or .nxs",
        )
    n = int(np.prod([spectra.sizes[d] for d in nav], dtype=np.int64))
    if n > MAX_SPECTRA:
        raise InputError(
            f"{n} spectra are asked of text files, at most {MAX_SPECTRA}",
            hint="write maps to .hspy, .zspy or .nxs, or sum pixels first",
        )
    lost: dict[str, None] = {}
    files = []
    for number, one in enumerate(_single(spectra, nav)):
        file = path if not nav else path.with_name(f"{path.stem}-{number}{path.suffix}")
        text = _text(one, str(sig[0]), file.stem, lost)
        with whole(file, overwrite=overwrite) as partial:
            partial.write_text(text, encoding="ascii", newline="\r\n")
        files.append(file)
    for key, coord in spectra.coords.items():
        if key != sig[0] and (sig[0] in coord.dims or coord.dtype.kind not in _SCALARS):
            lost[
                f"coordinate {key!r}: {coord.dtype} of dims {coord.dims} has no place in a spectrum"
            ] = None
    if spectra.attrs.get("original_metadata"):
        lost["original_metadata: the format has no place for it"] = None
    return files, list(lost)


def _single(spectra: xr.DataArray, nav: tuple[str, ...]) -> Iterator[xr.DataArray]:
    loaded = spectra.compute()
    for index in np.ndindex(*(loaded.sizes[d] for d in nav)):
        yield loaded.isel(dict(zip(nav, index, strict=True)))


def _text(spectrum: xr.DataArray, dim: str, name: str, lost: dict[str, None]) -> str:
    values = np.asarray(spectrum.values)
    if values.dtype.kind in "iu" and values.size and int(values.max()) > 2**53:
        lost["numbers beyond 2**53: they are read as floating point, and rounded"] = None
    gaps = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    if gaps.any():
        lost[
            "channels that were left out: other programs read 0 there (emcube reads them back)"
        ] = None
    axis = np.asarray(spectrum.coords[dim].values)
    uniform = _exactly_uniform(axis)
    header = _header(spectrum, dim, name, uniform, lost)
    entry = _entry(spectrum, dim, gaps, header, name)
    lines = [_line(key, value) for key, value in header.items()]
    lines += [f"##EMCUBE{i:03d} : {part}" for i, part in enumerate(_cut(entry))]
    lines.append(_line("SPECTRUM", "Spectral data starts here"))
    shown = np.where(gaps, 0, values)
    if uniform is None:
        lines += [
            f"{_number(x)}, {_number(y)}"
            for x, y in zip(axis.tolist(), shown.tolist(), strict=True)
        ]
    else:
        lines += [f"{_number(y)}," for y in shown.tolist()]
    lines.append(_line("ENDOFDATA", ""))
    return "\n".join(lines) + "\n"


def _exactly_uniform(axis: NDArray[Any]) -> tuple[float, float] | None:
    """Offset and scale from which the very positions follow; None: they are written out."""
    found = uniform_axis(axis)
    if found is None or axis.dtype != np.float64:
        return found if found is not None and axis.dtype.kind in "iu" else None
    offset, scale = found
    return found if np.array_equal(offset + scale * np.arange(axis.size), axis) else None


def _header(
    spectrum: xr.DataArray,
    dim: str,
    name: str,
    uniform: tuple[float, float] | None,
    lost: dict[str, None],
) -> dict[str, str]:
    metadata = dict(spectrum.attrs.get("metadata") or {})
    detector = metadata.get("detector") or {}
    date, time = _date_and_time(metadata.get("acquired"))
    unit = axis_units(spectrum, dim)
    counts = spectrum.attrs.get("units") == "counts"
    offset, scale = uniform or (float(spectrum.coords[dim].values[0]), 1.0)
    header = {
        "FORMAT": "EMSA/MAS spectral data file",
        "VERSION": "TC202v2.0",
        "TITLE": _title(str(metadata.get("title") or ""), name, lost),
        "DATE": date,
        "TIME": time,
        "OWNER": "",
        "NPOINTS": str(spectrum.sizes[dim]),
        "NCOLUMNS": "1",
        "XUNITS": "" if unit == "1" else _ascii(unit, lost),
        "YUNITS": "counts" if counts else "Intensity",
        "DATATYPE": "Y" if uniform is not None else "XY",
        "XPERCHAN": _number(scale),
        "OFFSET": _number(offset),
        "SIGNALTYPE": _TYPES.get(str(metadata.get("modality")), ""),
        "XLABEL": _ascii(dim, lost),
        "YLABEL": "counts" if counts else "Intensity",
        "BEAMKV   -kV": _given(metadata.get("beam_energy_keV")),
        "ELEVANGLE-dg": _given(detector.get("elevation_deg")),
        "AZIMANGLE-dg": _given(detector.get("azimuth_deg")),
        "SOLIDANGL-sR": _given(detector.get("solid_angle_sr")),
        "CONVANGLE-mR": _given(detector.get("convergence_mrad")),
        "COLLANGLE-mR": _given(detector.get("collection_mrad")),
        "LIVETIME  -s": _given(metadata.get("live_time_s")),
        "REALTIME  -s": _given(metadata.get("real_time_s")),
        "SPECIMEN": _ascii(str(metadata.get("specimen") or ""), lost),
    }
    always = 13
    return {k: v for i, (k, v) in enumerate(header.items()) if v or i < always}


def _title(title: str, name: str, lost: dict[str, None]) -> str:
    text = _ascii(f"{title} {name}".strip(), lost).replace(": ", "; ")
    if len(text) > _TITLE:
        lost[f"title: cut to {_TITLE} characters for other programs"] = None
    return text[:_TITLE]


def _ascii(text: str, lost: dict[str, None]) -> str:
    plain = text.replace("µ", "u").replace("Å", "A").encode("ascii", "replace").decode()
    if plain != text:
        lost["letters beyond ASCII: other programs read '?' (emcube reads them back)"] = None
    return " ".join(plain.split())


def _given(value: Any) -> str:
    return "" if value is None else _number(float(value))


def _number(value: float | int) -> str:
    return repr(value)


def _line(key: str, value: str) -> str:
    return f"#{key:<12}: {value}"


def _date_and_time(acquired: Any) -> tuple[str, str]:
    if not acquired:
        return "", ""
    when = dt.datetime.fromisoformat(str(acquired).replace("Z", "+00:00"))
    return (
        f"{when.day:02d}-{_MONTHS[when.month - 1]}-{when.year}",
        f"{when.hour:02d}:{when.minute:02d}",
    )


def _entry(
    spectrum: xr.DataArray, dim: str, gaps: NDArray[np.bool_], header: Mapping[str, str], name: str
) -> str:
    """What the keywords do not say, packed into letters that no program stumbles over."""
    plain = {key.split("-")[0].strip().upper(): value for key, value in header.items()}
    coord = spectrum.coords[dim]
    scalars = {
        str(k): {"value": c.values.item(), "attrs": dict(c.attrs)}
        for k, c in spectrum.coords.items()
        if c.ndim == 0 and c.dtype.kind in _SCALARS
    }
    entry = {
        "version": ENTRY_VERSION,
        "dim": dim,
        "dtype": spectrum.dtype.str,
        "units": spectrum.attrs.get("units"),
        "axis": {"dtype": coord.dtype.str, "attrs": dict(coord.attrs)},
        "gaps": _runs(gaps),
        "coords": scalars,
        "name": None if spectrum.name is None else str(spectrum.name),
        "attrs": {str(k): v for k, v in spectrum.attrs.items() if k not in _OWN},
        "metadata": dict(spectrum.attrs.get("metadata") or {}),
        "told": header_metadata(Path(f"{name}.msa"), plain),
    }
    packed = zlib.compress(json.dumps(to_json(entry)).encode(), 9)
    return base64.b64encode(packed).decode()


def _runs(gaps: NDArray[np.bool_]) -> list[list[int]]:
    """Start and stop of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], gaps.view(np.int8), [0]))))
    return [[int(a), int(b)] for a, b in edges.reshape(-1, 2)]


def _cut(text: str) -> list[str]:
    return [text[i : i + _WIDTH] for i in range(0, len(text), _WIDTH)]
