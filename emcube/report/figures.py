"""What the page draws: maps beside spectra, and curves, as plain data for its script.

Letters: K components (or clusters), F images of a series, E channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.report.packing import Thinning, axis_values, pack, plan_thinning, thin
from emcube.report.peaks import Peak, named_by, peaks_of
from emcube.report.quality import sum_residual
from emcube.report.sure import bands_of
from emcube.report.text import clean, percent, shorten
from emcube.results.kinds import AXES, CLUSTERS, PARTS
from emcube.units import pretty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.results import Result

__all__ = ["Part", "Parts", "curve", "parts_of"]

PRIMARY, SECONDARY = 600_000, 300_000
"""Values of the maps of the main step, and of any other step."""

PATTERNS = 200_000
"""Values of all patterns of a step, where the signal is an image."""

CHANNELS = 1_000_000
"""Values of all spectra of a step; beyond it neighbouring channels are taken together."""


@dataclass(frozen=True)
class Part:
    """A component or cluster in words.

    Attributes
    ----------
    name : str
        ``Component 0``.
    lines : str
        Its highest lines; empty where nothing is known.
    share : str
        Of what.
    peaks : list of Peak
        By energy.
    """

    name: str
    lines: str
    share: str
    peaks: list[Peak]


@dataclass(frozen=True)
class Parts:
    """Components or clusters of a step: words for the page, data for its script."""

    step: str
    parts: list[Part]
    data: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def parts_of(result: Result, step: str, *, primary: bool) -> Parts:
    """Collect maps and spectra of a step's components or clusters.

    Parameters
    ----------
    result : Result
        Complete.
    step : str
        A step with components or clusters.
    primary : bool
        Whether it is the main step, which may take more room.
    """
    node, verb = result[step], result.verb(step)
    clusters = verb in CLUSTERS
    by = "cluster" if clusters else "component"
    spectra = node["cluster_centers" if clusters else "components"]
    maps = node.get("labels" if clusters else "loadings")
    if maps is None:  # of several cubes each has its own
        maps = xr.DataArray(np.zeros(() if clusters else spectra.sizes[by]))
        maps = maps if clusters else maps.rename(dim_0=by)
    nav = [str(d) for d in maps.dims if d != "component"]
    sizes = {d: maps.sizes[d] for d in nav}
    n = spectra.sizes[by]
    plan = plan_thinning(sizes, 2 if clusters else n + 1, PRIMARY if primary else SECONDARY)
    signal = _Signal.of(spectra, by)
    peaks = [_peaks(result, signal, values) for values in signal.raw]
    words = _words(result, step, by, spectra, peaks, signal)
    totals = result["input"].get("total_counts") if "input" in result else None
    data: dict[str, Any] = {
        "id": step,
        "verb": verb,
        # Of a model whose spectra add up, the page can make any window's map and any pixel's spectrum.
        "adds": verb in PARTS,
        "nav": _navigation(maps, plan),
        "sig": signal.axes,
        "unit": clean(pretty(maps.attrs.get("units"))) if not clusters else "",
        "spectrumUnit": _spectrum_unit(spectra),
        "spectrumLabel": "share per channel" if verb in PARTS else _spectrum_unit(spectra),
        "yscale": "sqrt" if verb in PARTS and signal.is_physical else "linear",
        "spectra": signal.packed(),
        "parts": [
            {
                "name": part.name,
                "lines": part.lines,
                "share": part.share,
                "peaks": [[p.x, p.text] for p in part.peaks],
            }
            for part in words
        ],
    }
    bands = bands_of(result, step) if verb == "nmf" else None
    if bands is not None:
        data["bands"] = pack(_means(bands.reshape(2 * n, -1), signal.factor), "number")
    if nav and clusters:
        data["labels"] = pack(thin(maps, plan, "nearest"), "label")
    elif nav:
        values = np.moveaxis(thin(maps, plan), -1, 0)
        data["maps"] = pack(values, "map")
        data["ranges"] = [_range(one, signed=verb in AXES) for one in values]
        data["range"] = _range(values, signed=verb in AXES)
    if nav and totals is not None and tuple(map(str, totals.dims)) == tuple(nav):
        values = thin(totals, plan)
        data["total"] = {
            "map": pack(values, "map"),
            "range": _range(values, signed=False),
            "unit": clean(pretty(totals.attrs.get("units"))),
        }
    whole = _sum(result, step, signal)
    if whole is not None:
        data["sum"] = whole
    notes = [note for note in (plan.note, signal.note) if note]
    data["nav"]["note"] = plan.note
    return Parts(step, words, data, notes)


def curve(
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    x_label: str,
    y_label: str,
    log: bool = False,
    points: bool = True,
    rule: tuple[float, str] | None = None,
    accepted: int | None = None,
    value: str = "",
    faint: list[int] | None = None,
    band: float | None = None,
) -> dict[str, Any]:
    """Describe one curve for the page's script.

    Parameters
    ----------
    x, y : ndarray
    x_label, y_label : str
    log : bool
        Whether the vertical axis is logarithmic.
    points : bool
        Points joined by a line, or a line alone.
    rule : tuple of float and str, optional
        A horizontal line, and what it says.
    accepted : int, optional
        So many of the first points are marked.
    value : str
        What is said of a point, before its value.
    faint : list of int, optional
        Points that carry no meaning of their own.
    band : float, optional
        Half width of a band about zero.
    """
    return {
        "x": [float(v) for v in x],
        "y": [float(f"{float(v):.6g}") if np.isfinite(v) else None for v in y],
        "xLabel": x_label,
        "yLabel": y_label,
        "log": log,
        "points": points,
        "rule": None if rule is None else [rule[0], rule[1]],
        "accepted": accepted,
        "value": value,
        "faint": faint or [],
        "band": band,
    }


# ----------------------------------------------------------------------------------------- spectra


@dataclass(frozen=True)
class _Signal:
    """Spectra or patterns (K, signal dims), and their axes."""

    raw: NDArray[np.float64]
    shown: NDArray[np.float64]
    x: NDArray[np.float64]
    unit: str
    axes: dict[str, Any]
    is_physical: bool
    factor: int
    note: str

    @classmethod
    def of(cls, spectra: xr.DataArray, by: str) -> _Signal:
        dims = [str(d) for d in spectra.dims if d != by]
        values = np.asarray(spectra.transpose(by, *dims).values, dtype=np.float64)
        n = len(values)
        if len(dims) > 2:
            # No screen shows it: as one long row.
            values, dims = values.reshape(n, -1), []
        shape = values.shape[1:]
        budget = PATTERNS if len(shape) == 2 else CHANNELS
        factor = 1
        while n * np.prod([-(-s // factor) for s in shape]) > budget:
            factor += 1
        shown = _means(values, factor)
        note = f"each channel drawn is the mean of {factor ** len(shape)}" if factor > 1 else ""
        axes: dict[str, Any] = {"ndim": len(shape), "dims": [clean(d) for d in dims] or ["channel"]}
        x, unit, physical = np.arange(shape[-1], dtype=np.float64), "", False
        if len(shape) == 1:
            if dims and dims[0] in spectra.coords:
                unit = str(spectra[dims[0]].attrs.get("units") or "")
            places = axis_values(spectra, dims[0], factor) if dims else list(x[::factor])
            numeric = all(isinstance(v, float) for v in places)
            physical = numeric and bool(pretty(unit))
            if numeric and dims:
                x = np.asarray(axis_values(spectra, dims[0]), dtype=np.float64)
            axes |= {
                "label": _axis_label(dims[0] if dims else "channel", unit),
                "unit": clean(pretty(unit)),
                "x": places if numeric else list(range(len(places))),
                "names": None if numeric else [shorten(v, 40) for v in places],
                "bars": not physical and len(places) <= 40,
            }
        else:
            axes |= {
                "axes": [
                    {
                        "dim": clean(d),
                        "unit": clean(pretty(spectra[d].attrs.get("units")))
                        if d in spectra.coords
                        else "",
                        "values": axis_values(spectra, d, factor),
                    }
                    for d in dims
                ]
            }
        return cls(values, shown, x, unit, axes, physical, factor, note)

    def packed(self) -> dict[str, Any]:
        return pack(self.shown, "map" if self.axes["ndim"] == 2 else "number")


def _means(values: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Take neighbouring channels together; NaN where none of them was used."""
    if factor == 1:
        return values
    dims = [f"d{i}" for i in range(values.ndim - 1)]
    array = xr.DataArray(values, dims=("part", *dims))
    windows = dict.fromkeys(dims, factor)
    there = array.notnull()
    total = array.fillna(0.0).coarsen(windows, boundary="pad").sum()
    number = there.astype(np.float64).coarsen(windows, boundary="pad").sum()
    return np.asarray((total / number.where(number > 0)).values)


def _sum(result: Result, step: str, signal: _Signal) -> dict[str, Any] | None:
    """The measured sum over the pixels and, of an NMF, the model's."""
    if "input" not in result:
        return None
    measured = result["input"]["sum_spectrum"]
    values = np.asarray(measured.values, dtype=np.float64)
    if values.size != signal.raw[0].size:
        return None  # clusters of loadings have another signal
    factor = signal.factor
    values = values.reshape(signal.raw.shape[1:])
    found: dict[str, Any] = {
        "measured": pack(_means(values[None], factor)[0], "map" if values.ndim == 2 else "number"),
        "unit": clean(pretty(measured.attrs.get("units"))),
        "peaks": [[p.x, p.text] for p in _peaks(result, signal, values)],
    }
    compared = sum_residual(result, step)
    if compared is not None and values.ndim == 1:
        found["model"] = pack(_means(compared["model"][None], factor)[0])
    return found


def _peaks(result: Result, signal: _Signal, values: NDArray[np.float64]) -> list[Peak]:
    if not signal.is_physical:
        return []
    # The least of a principal component is as far from nothing as its most.
    return peaks_of(signal.x, signal.unit, values, result.metadata)


def _words(
    result: Result,
    step: str,
    by: str,
    spectra: xr.DataArray,
    peaks: list[list[Peak]],
    signal: _Signal,
) -> list[Part]:
    node, verb = result[step], result.verb(step)
    names = spectra[by].values.tolist() if by in spectra.coords else range(spectra.sizes[by])
    shares = [""] * len(peaks)
    if verb in PARTS:
        totals = node["component_totals"].values.astype(np.float64)
        whole = float(np.nansum(totals))
        of = "counts" if result.provenance["cube"]["units"] == "counts" else "signal"
        shares = [f"{percent(float(t) / whole)} of the {of}" if whole else "" for t in totals]
    elif verb == "pca":
        ratios = node["explained_variance_ratio"].values.astype(np.float64)
        shares = [f"{percent(float(r))} of the variance" for r in ratios]
        if node.attrs["trivial_first"]:
            shares[0] = "the mean spectrum: no contrast"
    elif verb in AXES:
        alone = node["variance_share"].values.astype(np.float64)
        shares = [f"{percent(float(r))} of the variance, alone" for r in alone]
    else:
        weights = node["cluster_weights"].values.astype(np.float64)
        whole = float(weights.sum())
        of = "weight" if verb == "kmeans" else "pixels"
        shares = [f"{percent(float(w) / whole)} of the {of}" if whole else "" for w in weights]
    lines = _lines(result, verb, peaks, signal)
    return [
        Part(
            name=shorten(f"{by.capitalize()} {name}", 60),
            lines=shorten(line, 60),
            share=share,
            peaks=found,
        )
        for name, share, found, line in zip(names, shares, peaks, lines, strict=True)
    ]


def _lines(result: Result, verb: str, peaks: list[list[Peak]], signal: _Signal) -> list[str]:
    """Lines that set the parts apart; edges rise from a background, and name nothing."""
    values = signal.raw.reshape(len(peaks), -1)
    if verb in AXES or result.metadata.get("modality") == "EELS" or not signal.is_physical:
        return [""] * len(peaks)
    if len(peaks) == 1:
        return [named_by(peaks[0], signal.x, values[0], None)]
    totals = np.nansum(values, axis=1, keepdims=True)
    shares = np.nan_to_num(values) / np.where(totals > 0, totals, 1.0)
    return [
        named_by(found, signal.x, one, np.delete(shares, k, axis=0).mean(axis=0))
        for k, (found, one) in enumerate(zip(peaks, values, strict=True))
    ]


# --------------------------------------------------------------------------------------- navigation


def _navigation(maps: xr.DataArray, plan: Thinning) -> dict[str, Any]:
    """Axes of the images, and what each image of a series is called."""
    axes = []
    for dim in plan.image:
        unit = str(maps[dim].attrs.get("units") or "") if dim in maps.coords else ""
        values = axis_values(maps, dim, plan.factor)
        axes.append(
            {
                "dim": clean(dim),
                "label": _axis_label(dim, unit),
                "unit": clean(pretty(unit)),
                "values": values
                if isinstance(values[0], float)
                else [shorten(v, 40) for v in values],
            }
        )
    return {"axes": axes, "frames": _captions(maps, plan)}


def _captions(maps: xr.DataArray, plan: Thinning) -> list[str]:
    if not plan.leading:
        return [""]
    lengths = [plan.sizes[d] for d in plan.leading]
    places = {d: axis_values(maps, d) for d in plan.leading}
    units = {
        d: pretty(str(maps[d].attrs.get("units") or "")) if d in maps.coords else ""
        for d in plan.leading
    }
    captions = []
    for flat in plan.frames:
        said = []
        for d, i in zip(plan.leading, np.unravel_index(flat, lengths), strict=True):
            value = places[d][int(i)]
            text = f"{value:.6g}" if isinstance(value, float) else shorten(value, 40)
            said.append(
                f"{clean(d)} {text}{'' if units[d] == '°' else ' '}{clean(units[d])}".strip()
            )
        captions.append(", ".join(said))
    return captions


def _axis_label(dim: str, unit: str) -> str:
    sign = clean(pretty(unit))
    name = shorten(dim.replace("_", " "), 40)
    return f"{name} ({sign})" if sign else name


def _spectrum_unit(spectra: xr.DataArray) -> str:
    return clean(pretty(spectra.attrs.get("units"))).removeprefix("1 ")


def _range(values: NDArray[np.float64], *, signed: bool) -> dict[str, Any]:
    """Ends of a map's colour scale, and whether it runs both ways from zero: as `emcube.plot` chooses."""
    from emcube.plot.style import DIVERGING, map_scale

    norm, colors, _ = map_scale(values, signed=signed)
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 0.0)
    return {"low": low, "high": high, "diverging": colors.name == DIVERGING}
