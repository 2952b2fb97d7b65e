"""EMSA/MAS spectra (ISO 22029): a header of ``#KEYWORD : value`` lines, then one spectrum as text.

Read here because RosettaSciIO gives an empty spectrum where nothing follows the colon of ``#SPECTRUM    :``.

References
----------
ISO 22029:2022, EMSA/MAS standard file format for spectral-data exchange.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from emcube.cube.metadata import ELEMENTS
from emcube.errors import ReadError
from emcube.io.axes import Axis, label_array, plan_axes
from emcube.io.sidecar import merged_metadata, positions
from emcube.io.signals import Signal

__all__ = ["ENTRY_VERSION", "header_metadata", "read_msa"]

_SIGNAL_TYPES = {"EDS": "EDS", "ELS": "EELS", "WDS": "WDS", "XRF": "XRF", "CLS": "CL"}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def read_msa(path: Path, *, name: str | None = None, reader: str | None = None) -> list[Signal]:
    """Read an EMSA/MAS spectrum.

    Whole non-negative numbers become uint32 counts, anything else float64.

    Parameters
    ----------
    path : Path
    name, reader : str, optional
        Not needed: the file holds one spectrum.

    Raises
    ------
    ReadError
        Not an EMSA/MAS file, cut short, or with another number of points than its header says.
    """
    header, lines, ended = _split(path)
    xy = header.get("DATATYPE", "Y").upper() == "XY"
    places, values = _numbers(path, lines, xy)
    promised = _float(header.get("NPOINTS"))
    if not ended or (promised is not None and int(promised) != values.size):
        raise ReadError(
            f"{path}: the spectrum holds {values.size} points"
            f"{'' if ended else ' and does not end with #ENDOFDATA'}, expected "
            f"{'' if promised is None else int(promised)} as in its header",
            hint="the file was cut short; fetch or export it again",
        )
    axis = Axis(
        values.size,
        header.get("XLABEL", ""),
        _float(header.get("OFFSET")) or 0.0,
        _float(header.get("XPERCHAN")) or 1.0,
        header.get("XUNITS", ""),
        navigate=False,
        values=places,
    )
    plan = plan_axes([axis], spectral=True)
    attrs: dict[str, object] = {
        "units": "counts" if "count" in header.get("YUNITS", "counts").lower() else "1",
        "metadata": header_metadata(path, header),
        "original_metadata": {k: v for k, v in header.items() if not _OURS.fullmatch(k)},
    }
    cube = label_array(values, plan, attrs)
    title = header.get("TITLE", "") or path.stem
    entry = _entry(header)
    if entry is not None:
        cube, title = _restored(cube, axis, entry, title)
    return [Signal.of(cube, title)]


ENTRY_VERSION = 1
_OURS = re.compile(r"EMCUBE\d{3}")
#: Bytes that an entry of emcube may unfold to.
_MAX_ENTRY = 2**20


def _entry(header: dict[str, str]) -> dict[str, Any] | None:
    """What emcube wrote beside the keywords; None where it is another program's file, or was changed."""
    parts = [header[key] for key in sorted(header) if _OURS.fullmatch(key)]
    if not parts:
        return None
    try:
        packed = base64.b64decode("".join(parts), validate=True)
        entry = json.loads(zlib.decompressobj().decompress(packed, _MAX_ENTRY))
    except (ValueError, zlib.error):
        return None
    known = isinstance(entry, dict) and entry.get("version") == ENTRY_VERSION
    return entry if known else None


def _restored(
    cube: xr.DataArray, axis: Axis, entry: dict[str, Any], title: str
) -> tuple[xr.DataArray, str]:
    """Give a spectrum that emcube wrote its units, dtype, gaps, names and metadata back."""
    dim, dtype = entry["dim"], np.dtype(entry["dtype"])
    values = np.asarray(cube.values).astype(dtype)
    for start, stop in entry["gaps"]:
        values[start:stop] = np.nan
    exact = positions(axis) if axis.values is None else axis.values
    exact = exact.astype(np.dtype(entry["axis"]["dtype"]))
    coords = {dim: xr.DataArray(exact, dims=(dim,), attrs=dict(entry["axis"]["attrs"]))}
    for key, scalar in entry["coords"].items():
        coords[key] = xr.DataArray(scalar["value"], attrs=dict(scalar["attrs"]))
    found = dict(cube.attrs["metadata"])
    metadata = merged_metadata(entry["told"], entry["metadata"], found)
    attrs = {**cube.attrs, **entry["attrs"], "metadata": metadata}
    attrs |= {"units": entry["units"] or cube.attrs["units"], "sig_dims": [dim]}
    return xr.DataArray(values, dims=(dim,), coords=coords, attrs=attrs), entry["name"] or title


def _split(path: Path) -> tuple[dict[str, str], list[str], bool]:
    header: dict[str, str] = {}
    lines: list[str] = []
    ended = False
    body = False
    for line in path.read_text("latin-1").splitlines():
        if line.startswith("#"):
            key, _, value = line.lstrip("#").partition(":")
            # "#XPERCHAN eV: 10" and "#ELEVANGLE-dg: 35": the unit belongs to the key.
            key = re.split(r"[\s-]", key.strip())[0].upper()
            if key == "SPECTRUM":
                body = True
            elif key == "ENDOFDATA":
                ended = True
                break
            else:
                header.setdefault(key, value.strip())
        elif body and line.strip():
            lines.append(line)
    if not body:
        raise ReadError(
            f"{path}: the file has no line '#SPECTRUM', expected one before the counts",
            hint="the file was cut short or is not an EMSA/MAS spectrum",
        )
    return header, lines, ended


def _numbers(
    path: Path, lines: list[str], xy: bool
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | NDArray[np.uint32]]:
    try:
        words = [
            float(word)
            for line in lines
            for word in re.split(r"[,\s]+", line.strip(" ,\t"))
            if word
        ]
    except ValueError as error:
        raise ReadError(
            f"{path}: a value of the spectrum is not a number: {error}",
            hint="the file is damaged; fetch or export it again",
        ) from error
    flat = np.array(words)
    if not flat.size or (xy and flat.size % 2):
        raise ReadError(
            f"{path}: the spectrum holds {flat.size} values, expected {'pairs' if xy else 'some'}",
            hint="the file was cut short; fetch or export it again",
        )
    positions, values = (flat[0::2].copy(), flat[1::2].copy()) if xy else (None, flat)
    whole = np.isfinite(values).all() and (values >= 0).all() and (values == np.rint(values)).all()
    if whole and values.max() <= np.iinfo(np.uint32).max:
        return positions, values.astype(np.uint32)
    return positions, values


def _float(word: str | None) -> float | None:
    try:
        return float(word) if word else None
    except ValueError:
        return None


def header_metadata(path: Path, header: Mapping[str, str]) -> dict[str, object]:
    """Metadata of a spectrum from its keywords."""
    composition = re.findall(r"\(([A-Z][a-z]?):\s*[\d.]+\)", header.get("D2STDCMP", ""))
    detector = {
        "type": header.get("EDSDET") or None,
        "elevation_deg": _float(header.get("ELEVANGLE")),
        "azimuth_deg": _float(header.get("AZIMANGLE")),
        "solid_angle_sr": _positive(header.get("SOLIDANGLE") or header.get("SOLIDANGL")),
        "convergence_mrad": _float(header.get("CONVANGLE")),
        "collection_mrad": _float(header.get("COLLANGLE")),
    }
    found: dict[str, object] = {
        "title": header.get("TITLE") or None,
        "modality": _SIGNAL_TYPES.get(header.get("SIGNALTYPE", "").upper(), "spectrum"),
        "beam_energy_keV": _positive(header.get("BEAMKV")),
        "elements": [e for e in dict.fromkeys(composition) if e in ELEMENTS],
        "detector": {k: v for k, v in detector.items() if v is not None},
        "live_time_s": _positive(header.get("LIVETIME")),
        "real_time_s": _positive(header.get("REALTIME")),
        "acquired": _acquired(header),
        "specimen": header.get("SPECIMEN") or None,
        "source": {"file": path.name, "format": "EMSA", "reader": "emcube"},
    }
    return {k: v for k, v in found.items() if v not in (None, [], {})}


def _positive(word: str | None) -> float | None:
    number = _float(word)
    return number if number is not None and number > 0 else None


def _acquired(header: Mapping[str, str]) -> str | None:
    # Months are English abbreviations by the standard, whatever the locale.
    match = re.fullmatch(r"(\d{1,2})-([A-Za-z]{3})-(\d{4})", header.get("DATE", "").strip())
    if match is None or match[2].upper() not in _MONTHS:
        return None
    time = re.fullmatch(r"(\d{1,2}):(\d{2})", header.get("TIME", "").strip())
    hour, minute = (int(time[1]), int(time[2])) if time else (0, 0)
    try:
        month = _MONTHS.index(match[2].upper()) + 1
        return dt.datetime(int(match[3]), month, int(match[1]), hour, minute).isoformat()
    except ValueError:
        return None
