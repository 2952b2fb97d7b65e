"""HyperSpy's way to describe a signal (axes, metadata tree), turned into emcube's.

RosettaSciIO gives every instrument file in this form, and ``.zspy`` files hold it as it is.
"""

from __future__ import annotations

import copy
import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emcube.cube.metadata import ELEMENTS
from emcube.errors import ReadError
from emcube.io.axes import Axis, AxisPlan, label_array, plan_axes
from emcube.io.lazy import FileArray, as_dask
from emcube.io.sidecar import restore, restored_metadata
from emcube.io.signals import Signal, jsonable

__all__ = [
    "axes_of",
    "dig",
    "merge_mapping",
    "plan_of",
    "sig_axes_of",
    "signal_attrs",
    "signal_from_tree",
    "tree_metadata",
]

_log = logging.getLogger("emcube.io")


def signal_from_tree(
    path: Path,
    kind: str,
    source: FileArray,
    grain: Sequence[int] | None,
    axes: Sequence[Mapping[str, Any]],
    meta: Mapping[str, Any],
    original: Any,
) -> Signal:
    """Label a lazy array by HyperSpy's axes and metadata.

    Parameters
    ----------
    kind : str
        Name of the format, for the metadata.
    grain : sequence of int, optional
        Chunk lengths in the file.
    """
    described = axes_of(axes, source.shape, path, meta)
    plan = plan_of(described, meta)
    array = as_dask(source, sig_axes_of(plan), grain)
    attrs = signal_attrs(path, kind, "emcube", plan, meta, original, source.dtype)
    cube = restore(label_array(array, plan, attrs), described, plan, meta)
    return Signal.of(cube, str(dig(meta, "General.title") or ""))


def plan_of(axes: Sequence[Axis], meta: Mapping[str, Any]) -> AxisPlan:
    """Plan the axes with what the metadata say of the kind of signal."""
    signal_type = str(dig(meta, "Signal.signal_type") or "")
    return plan_axes(
        axes,
        diffraction="diffraction" in signal_type.lower(),
        spectral=signal_type.startswith(("EDS", "EELS")),
    )


def sig_axes_of(plan: AxisPlan) -> list[int]:
    """Return the array's own axes that are signal axes."""
    return [plan.order[plan.dims.index(dim)] for dim in plan.sig_dims]


def signal_attrs(
    path: Path,
    kind: str,
    reader: str,
    plan: AxisPlan,
    meta: Mapping[str, Any],
    original: Any,
    dtype: np.dtype[Any],
) -> dict[str, object]:
    """Return the attributes of the cube: units of its values, metadata, original metadata."""
    metadata = tree_metadata(meta, plan)
    metadata["source"] = {"file": path.name, "format": kind, "reader": reader}
    if plan.notes:
        metadata["extra"] = {"notes": list(plan.notes)}
    return {
        "units": _value_units(meta, dtype),
        "metadata": restored_metadata(meta, metadata),
        "original_metadata": jsonable(as_dict(original)),
    }


def tree_metadata(meta: Mapping[str, Any], plan: AxisPlan) -> dict[str, Any]:
    """Pick emcube's metadata out of HyperSpy's tree."""
    metadata = _metadata(meta, plan)
    title = _text(dig(meta, "General.title"))
    return {**metadata, "title": title} if title else metadata


def axes_of(
    described: Sequence[Mapping[str, Any]],
    shape: Sequence[int],
    path: Path,
    meta: Mapping[str, Any],
) -> list[Axis]:
    """Return the axes in array order.

    Raises
    ------
    ReadError
        The description does not fit the array.
    """
    dicts = list(described)
    if [int(d["size"]) for d in dicts if "size" in d] != list(shape) and all(
        "index_in_array" in d for d in dicts
    ):
        dicts.sort(key=lambda d: int(d["index_in_array"]))
    if len(dicts) != len(shape):
        raise ReadError(
            f"{path}: {len(dicts)} axes are described for an array of {len(shape)} (shape {tuple(shape)})",
            hint="the file is damaged; fetch or export it again",
        )
    # Old HyperSpy files leave the flag out: their last axis is then the signal's, or the last two of images.
    by_record = {"spectrum": 1, "image": 2}.get(str(dig(meta, "Signal.record_by") or ""))
    axes = []
    for i, (d, size) in enumerate(zip(dicts, shape, strict=True)):
        navigate = d.get("navigate")
        if navigate is None:
            navigate = i < len(shape) - by_record if by_record else False
        values = d.get("axis")
        if isinstance(values, Mapping):
            values = None
        units = d.get("units")
        axes.append(
            Axis(
                size=int(size),
                name=_text(d.get("name")),
                offset=float(d.get("offset", 0.0) or 0.0),
                scale=float(d.get("scale", 1.0)),
                units=_text(units),
                navigate=bool(navigate),
                values=None if values is None else np.asarray(values, dtype=np.float64),
            )
        )
    return axes


def _text(value: Any) -> str:
    if value is None or type(value).__name__ in ("_Undefined", "UndefinedType"):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    text = str(value)
    return "" if text.lower() in ("none", "<undefined>", "undefined", "_none_") else text


def as_dict(tree: Any) -> Any:
    """Return HyperSpy's dictionary browsers as dicts."""
    return tree.as_dictionary() if hasattr(tree, "as_dictionary") else tree


def dig(tree: Any, path: str) -> Any:
    """Follow a dotted path through nested mappings; None where it ends early."""
    keys = path.split(".")
    while keys:
        if not isinstance(tree, Mapping):
            return None
        # Keys may hold dots themselves.
        for n in range(len(keys), 0, -1):
            if (key := ".".join(keys[:n])) in tree:
                tree, keys = tree[key], keys[n:]
                break
        else:
            return None
    return tree


class _Browser(dict[str, Any]):
    """A dict as the plug-ins' little functions expect it: HyperSpy's trees give their keys as a list."""

    @classmethod
    def of(cls, value: Any) -> Any:
        """Wrap a mapping with all mappings in it; give anything else back."""
        if isinstance(value, Mapping):
            return cls({str(key): cls.of(entry) for key, entry in value.items()})
        return value

    def keys(self) -> Any:
        """Return a list of the keys."""
        return list(super().keys())


def merge_mapping(
    meta: dict[str, Any], original: Any, mapping: Mapping[str, Any]
) -> dict[str, Any]:
    """Carry entries of the original metadata over, as the plug-in's own table says."""
    meta = copy.deepcopy(as_dict(meta))
    original = as_dict(original)
    for source, (target, convert) in mapping.items():
        value = dig(original, source)
        if value is None:
            continue
        if convert is not None:
            try:
                value = convert(_Browser.of(value))
            # The plug-in's little functions may raise anything over unexpected values.
            except Exception as error:  # noqa: BLE001
                _log.warning(
                    "metadata %s: %s could not be converted (%s); it stays in original_metadata",
                    source,
                    value,
                    error,
                )
                continue
        node = meta
        *parents, leaf = target.split(".")
        for key in parents:
            node = node.setdefault(key, {}) if isinstance(node.get(key, {}), dict) else {}
        if value is not None:
            node.setdefault(leaf, value)
    return meta


def _number(value: Any, *, positive: bool = False, least: float | None = None) -> float | None:
    try:
        number = float(np.asarray(value).ravel()[0])
    except (TypeError, ValueError, IndexError):
        return None
    if (
        not np.isfinite(number)
        or (positive and number <= 0)
        or (least is not None and number < least)
    ):
        return None
    # Single-precision headers: 200.00000298 keV was never meant.
    return float(f"{number:.7g}") if isinstance(value, np.float32) else number


def _metadata(meta: Mapping[str, Any], plan: AxisPlan) -> dict[str, Any]:
    """Pick the entries of emcube's metadata out of HyperSpy's tree."""
    instrument: dict[str, Any] = {}
    for column in ("TEM", "SEM"):
        instrument = dig(meta, f"Acquisition_instrument.{column}") or instrument
    detectors = instrument.get("Detector") or {}
    spectral: Mapping[str, Any] = next(
        (detectors[k] for k in ("EDS", "EELS", "Diffraction", "Camera") if k in detectors), {}
    )
    detector = {
        "type": _text(spectral.get("detector_type")) or _text(spectral.get("spectrometer")) or None,
        "energy_resolution_eV": _number(spectral.get("energy_resolution_MnKa"), positive=True),
        "azimuth_deg": _number(spectral.get("azimuth_angle")),
        "elevation_deg": _number(spectral.get("elevation_angle")),
        "collection_mrad": _number(spectral.get("collection_angle"), least=0),
        "convergence_mrad": _number(instrument.get("convergence_angle"), least=0),
    }
    sample = dig(meta, "Sample") or {}
    found: dict[str, Any] = {
        "modality": _modality(str(dig(meta, "Signal.signal_type") or ""), plan),
        "beam_energy_keV": _number(instrument.get("beam_energy"), positive=True),
        "elements": _elements(sample),
        "detector": {k: v for k, v in detector.items() if v is not None},
        "tilt_deg": _number(dig(instrument, "Stage.tilt_alpha")),
        "live_time_s": _number(spectral.get("live_time"), least=0),
        "real_time_s": _number(spectral.get("real_time"), least=0),
        "dwell_time_s": _number(instrument.get("dwell_time"), least=0),
        "acquired": _acquired(dig(meta, "General") or {}),
        "instrument": _text(instrument.get("microscope")) or None,
        "specimen": _text(sample.get("name")) or _text(sample.get("description")) or None,
    }
    return {k: v for k, v in found.items() if v not in (None, [], {})}


def _elements(sample: Mapping[str, Any]) -> list[str]:
    listed = sample.get("elements")
    if listed is None or not len(listed):
        listed = [
            str(line).partition("_")[0] for line in np.atleast_1d(sample.get("xray_lines", []))
        ]
    return [e for e in dict.fromkeys(str(e) for e in np.atleast_1d(listed)) if e in ELEMENTS]


def _acquired(general: Mapping[str, Any]) -> str | None:
    date, time = _text(general.get("date")), _text(general.get("time"))
    try:
        return dt.datetime.fromisoformat(f"{date}T{time}" if time else date).isoformat()
    except ValueError:
        return None


def _modality(signal_type: str, plan: AxisPlan) -> str:
    for known in ("EDS", "EELS", "WDS", "XRF", "CL"):
        if signal_type == known or signal_type.startswith(f"{known}_"):
            return known
    if not plan.sig_dims:
        return "image"
    if plan.sig_dims[0] in ("ky", "kx"):
        return "4D-STEM" if len(plan.dims) > len(plan.sig_dims) else "other"
    if "energy" in plan.coords:
        values, unit = plan.coords["energy"]
        # Loss spectra end at a few keV; X-ray spectra written in eV reach the beam's order.
        return "EDS" if unit == "keV" or values[-1] > 8000 else "EELS"
    return "spectrum"


def _value_units(meta: Mapping[str, Any], dtype: np.dtype[Any]) -> str:
    quantity = str(dig(meta, "Signal.quantity") or "").lower()
    if np.dtype(dtype).kind in "iu":
        return "counts"
    return "counts" if "count" in quantity or "x-rays" in quantity else "1"
