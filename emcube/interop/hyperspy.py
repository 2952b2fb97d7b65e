"""Signals of HyperSpy from cubes, and cubes from signals of HyperSpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.cube import nav_dims, sig_dims, validate_cube
from emcube.errors import InputError, MissingDependencyError
from emcube.interop.signal import SignalTree, describe_signal
from emcube.io.axes import Axis, AxisPlan, label_array
from emcube.io.hyperspy import axes_of, dig, plan_of, signal_attrs
from emcube.io.sidecar import restore

if TYPE_CHECKING:
    import xarray as xr

    from emcube.results import Result

__all__ = ["Opened", "from_hyperspy", "learned", "open_signal", "to_hyperspy"]


def to_hyperspy(cube: xr.DataArray, *, result: Result | None = None) -> Any:
    """Make a signal of HyperSpy from a cube.

    Parameters
    ----------
    cube : xarray.DataArray
    result : Result, optional
        Of this cube; its components, loadings and clusters become ``learning_results``.

    Returns
    -------
    hyperspy.signals.BaseSignal
        Of the class that the signal's type and dims call for, lazy where the cube is. What HyperSpy has
        no name for lies in ``metadata.emcube``, and comes back with `from_hyperspy`.

    Raises
    ------
    MissingDependencyError
        HyperSpy is not installed; emcube does not need it for anything else.
    CubeError
        The array is not a cube.
    InputError
        The result is of another cube.

    Notes
    -----
    Values are not read and not copied. Masks of HyperSpy are True for what is left out, the opposite of
    ``where=``.

    Examples
    --------
    >>> signal = cube.em.to_hyperspy()  # doctest: +SKIP
    >>> signal.plot()  # doctest: +SKIP
    """
    hs = _hyperspy("to make one of its signals")
    from emcube.interop.exporting import with_learning

    cube, learning, _ = with_learning(cube, result)
    return _signal(hs, describe_signal(cube, learning))


def _hyperspy(why: str) -> Any:
    try:
        import hyperspy.api
    except ImportError as error:
        raise MissingDependencyError(
            f"HyperSpy is needed {why}: {error}",
            hint="install it with: pip install hyperspy; files for it are written without it: "
            "emcube.export(cube, 'map.hspy')",
        ) from error
    return hyperspy.api


def _signal(hs: Any, tree: SignalTree) -> Any:
    data = tree.data
    lazy = hasattr(data, "dask")
    signal = hs.signals.BaseSignal(
        data,
        axes=tree.axis_dicts(),
        metadata=tree.metadata,
        original_metadata=tree.original_metadata,
    )
    if lazy:
        signal = signal.as_lazy()
    # Now that axes and values are known HyperSpy takes the class that fits.
    signal.set_signal_type(tree.metadata["Signal"]["signal_type"])
    for key, value in tree.learning.items():
        setattr(signal.learning_results, key, value)
    return signal


# -------------------------------------------------------------------------------------- from HyperSpy


@dataclass(frozen=True, eq=False)
class Opened:
    """A signal as a cube, and how the cube's arrays lie in the signal.

    Attributes
    ----------
    cube : xarray.DataArray
    nav_shape, sig_shape : tuple of int
        Of the signal's array.
    as_is : bool
        The cube's axes are those of the signal's array, none moved and none turned round.
    """

    cube: xr.DataArray
    nav_shape: tuple[int, ...]
    sig_shape: tuple[int, ...]
    as_is: bool


def from_hyperspy(signal: Any) -> xr.DataArray:
    """Make a cube from a signal of HyperSpy.

    Parameters
    ----------
    signal : hyperspy.signals.BaseSignal
        Of any class; lazy or in memory.

    Returns
    -------
    xarray.DataArray
        Named and measured as `emcube.open` does it for HyperSpy's files: energies keep their unit,
        lengths are in nm, angles in degrees. Lazy where the signal is. Values are not copied.

    Raises
    ------
    InputError
        It is no signal of HyperSpy, or a ragged one.
    ReadError
        Its axes cannot be understood.
    CubeError
        Its values are no real numbers.

    Notes
    -----
    HyperSpy is not imported: whoever has a signal has it. A signal that came from `to_hyperspy`, or from
    a file that emcube wrote, becomes the cube that it was, with what was changed in HyperSpy.

    Examples
    --------
    >>> cube = em.from_hyperspy(signal)  # doctest: +SKIP
    """
    return open_signal(signal).cube


def open_signal(signal: Any) -> Opened:
    """Make a cube from a signal, and remember how it lies there."""
    _require_signal(signal)
    meta = signal.metadata.as_dictionary()
    data = signal.data
    title = str(dig(meta, "General.title") or "")
    where = Path(title or "signal")
    described = axes_of(_axis_dicts(signal), data.shape, where, meta)
    plan = plan_of(described, meta)
    attrs = signal_attrs(
        where,
        "HyperSpy signal",
        "emcube",
        plan,
        meta,
        signal.original_metadata.as_dictionary(),
        data.dtype,
    )
    attrs["metadata"] = _without_file(attrs["metadata"])
    cube = restore(label_array(data, plan, attrs), described, plan, meta)
    cube = validate_cube(cube.rename(title or None))
    navigate = [axis.navigate for axis in described]
    nav = tuple(n for n, flag in zip(data.shape, navigate, strict=True) if flag)
    sig = tuple(n for n, flag in zip(data.shape, navigate, strict=True) if not flag)
    return Opened(cube, nav, sig, _is_as_is(cube, plan, described))


def _require_signal(signal: Any) -> None:
    expected = ("axes_manager", "metadata", "original_metadata", "data", "learning_results")
    if not all(hasattr(signal, name) for name in expected):
        raise InputError(
            f"got {type(signal).__module__}.{type(signal).__name__}, expected a signal of HyperSpy",
            hint="load one with hyperspy.api.load(...); emcube.open opens files itself",
        )
    if getattr(signal, "ragged", False):
        raise InputError(
            "got a ragged signal of HyperSpy, expected one array of numbers",
            hint="ragged signals have no place in a cube",
        )


def _axis_dicts(signal: Any) -> list[dict[str, Any]]:
    """Axes in the order of the array; those without offset and scale by their positions."""
    # HyperSpy's own order counts the other way round; this one is the array's.
    axes: Sequence[Any] = signal.axes_manager._axes
    found = []
    for axis in axes:
        described = {
            "name": axis.name,
            "units": axis.units,
            "navigate": bool(axis.navigate),
            "size": int(axis.size),
        }
        if getattr(axis, "is_uniform", True):
            described |= {"offset": float(axis.offset), "scale": float(axis.scale)}
        else:
            described["axis"] = np.asarray(axis.axis, dtype=np.float64)
        found.append(described)
    return found


def _without_file(metadata: Any) -> dict[str, Any]:
    """Metadata of a signal in memory: its title is no name of a file."""
    source = {key: value for key, value in metadata["source"].items() if key != "file"}
    return {**metadata, "source": source}


def _is_as_is(cube: xr.DataArray, plan: AxisPlan, axes: Sequence[Axis]) -> bool:
    flags = [bool(axis.navigate) for axis in axes]
    return (
        plan.order == tuple(range(len(axes)))
        and not plan.flipped
        and flags == [str(dim) not in sig_dims(cube) for dim in cube.dims]
    )


def learned(signal: Any) -> xr.Dataset:
    """Take the results of a signal out of its ``learning_results``, labelled.

    Parameters
    ----------
    signal : hyperspy.signals.BaseSignal

    Returns
    -------
    xarray.Dataset
        Those of ``components``, ``loadings``, ``explained_variance``, ``bss_components``,
        ``bss_loadings`` and ``labels`` that there are, with the coordinates of the cube.

    Raises
    ------
    InputError
        It is no signal of HyperSpy, or has no results, or these do not fit its axes.
    """
    import xarray as xr

    opened = open_signal(signal)
    cube, results = opened.cube, signal.learning_results
    if not opened.as_is:
        raise InputError(
            "the signal's axes are not in the order of a cube (navigation first, energy rising)",
            hint="transpose the signal in HyperSpy first",
        )
    found: dict[str, xr.DataArray] = {}
    for prefix in ("", "bss_"):
        factors = getattr(results, f"{prefix}factors", None)
        loadings = getattr(results, f"{prefix}loadings", None)
        if factors is not None and loadings is not None:
            dim = f"{prefix}component"
            found[f"{prefix}components"] = _as_components(cube, factors, dim)
            found[f"{prefix}loadings"] = _as_loadings(cube, loadings, dim)
    variance = getattr(results, "explained_variance", None)
    if variance is not None and "components" in found:
        values = np.asarray(variance)[: found["components"].sizes["component"]]
        found["explained_variance"] = xr.DataArray(
            values, dims=("component",), attrs={"units": "1"}
        )
    members = getattr(results, "cluster_labels", None)
    if members is not None:
        found["labels"] = _as_labels(cube, np.asarray(members, dtype=bool))
    if not found:
        raise InputError(
            "the signal has no learning results",
            hint="run signal.decomposition() or emcube.decompose(signal, ...) first",
        )
    return xr.Dataset(found)


def _as_components(cube: xr.DataArray, factors: Any, dim: str) -> xr.DataArray:
    import xarray as xr

    sig = sig_dims(cube)
    shape = tuple(cube.sizes[d] for d in sig)
    values = np.asarray(factors, dtype=np.float64).T
    coords = {d: cube.coords[d] for d in sig}
    return xr.DataArray(
        values.reshape((-1, *_fitting(values, shape, "factors"))),
        dims=(dim, *sig),
        coords=coords,
        attrs={"units": "1", "sig_dims": list(sig)},
    )


def _as_loadings(cube: xr.DataArray, loadings: Any, dim: str) -> xr.DataArray:
    import xarray as xr

    nav = nav_dims(cube)
    shape = tuple(cube.sizes[d] for d in nav)
    values = np.asarray(loadings, dtype=np.float64)
    _fitting(values.T, shape, "loadings")
    coords = {d: cube.coords[d] for d in nav}
    attrs: Mapping[str, Any] = {"units": cube.attrs.get("units", "1"), "sig_dims": [dim]}
    return xr.DataArray(
        values.reshape((*shape, values.shape[-1])), dims=(*nav, dim), coords=coords, attrs=attrs
    )


def _as_labels(cube: xr.DataArray, members: Any) -> xr.DataArray:
    import xarray as xr

    nav = nav_dims(cube)
    shape = tuple(cube.sizes[d] for d in nav)
    _fitting(members, shape, "cluster_labels")
    labels = np.where(members.any(axis=0), members.argmax(axis=0), -1).astype(np.int32)
    coords = {d: cube.coords[d] for d in nav}
    return xr.DataArray(labels.reshape(shape), dims=nav, coords=coords, attrs={"units": "1"})


def _fitting(rows: Any, shape: tuple[int, ...], what: str) -> tuple[int, ...]:
    expected = int(np.prod(shape, dtype=np.int64))
    if rows.ndim != 2 or rows.shape[1] != expected:
        raise InputError(
            f"{what} of the signal: {rows.shape[-1]} values a component, its axes have {expected}",
            hint="the signal was cut after its decomposition: decompose it again",
        )
    return shape
