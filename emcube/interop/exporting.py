"""Write cubes and results in other programs' formats, and say what these cannot hold."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from emcube.addresses import is_url, local_part
from emcube.errors import InputError
from emcube.results import Result, open_result
from emcube.store.write import local_path

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SUFFIXES", "Exported", "export", "with_learning"]

#: Suffix to what the file is.
SUFFIXES = {
    ".hspy": "HyperSpy's HDF5 file",
    ".zspy": "HyperSpy's Zarr folder",
    ".nxs": "NeXus file (NXem)",
    ".nexus": "NeXus file (NXem)",
    ".msa": "EMSA/MAS spectra (ISO 22029)",
    ".csv": "table of spectra",
    ".tif": "calibrated TIFF (ImageJ)",
    ".tiff": "calibrated TIFF (ImageJ)",
}


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes
    ----------
    files : tuple of Path
    lost : tuple of str
        A line for each thing that the format has no place for; empty where nothing is lost.
    """

    files: tuple[Path, ...]
    lost: tuple[str, ...] = ()


def export(
    what: xr.DataArray | Result | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    result: Result | str | os.PathLike[str] | None = None,
    fields: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a cube or a result for another program; the suffix says for which.

    ``.hspy`` and ``.zspy`` are HyperSpy's, with axes, units, metadata and, with `result`, learning
    results. ``.nxs`` is NeXus (NXem). ``.msa`` and ``.csv`` hold spectra: the components of a result, or a
    cube's own. ``.tif`` holds maps: loadings and labels of a result, line maps, images.

    Parameters
    ----------
    what : DataArray, Result, or whatever `emcube.open` or `emcube.open_result` takes
    path : path-like
        The file; several spectra get the name of their step and a number.
    result : Result or path-like, optional
        Of the cube: goes into the same file (HyperSpy, NeXus).
    fields : mapping, optional
        NeXus only: further fields by their paths within the entry.
    overwrite : bool
        Replace what is there.

    Returns
    -------
    Exported
        The files, and what they cannot hold.

    Raises
    ------
    InputError
        The suffix is none of these, or the format does not take what is given.
    StoreError
        The file exists or cannot be written; nothing is left of the attempt.
    IncompleteError
        The result was never finished.

    Notes
    -----
    One pass over the cube, out of core. No other program needs to be installed.

    Examples
    --------
    >>> import numpy as np, tempfile, emcube as em
    >>> folder = tempfile.TemporaryDirectory()
    >>> cube = em.make_cube(np.ones((4, 5, 6), "uint8"), dims=("y", "x", "energy"))
    >>> em.export(cube, f"{folder.name}/map.hspy").lost
    ()
    >>> folder.cleanup()
    """
    target = local_path(local_part(os.fspath(path)))
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"{str(target)!r}: nothing is exported to {suffix or 'a name without suffix'!r}, expected one of "
            f"{', '.join(SUFFIXES)}",
            hint="give the file one of these suffixes",
        )
    cube, of = _given(what, result)
    if fields and suffix not in (".nxs", ".nexus"):
        raise InputError(f"fields= are for NeXus files, got {str(target)!r}", hint="leave them out")
    if suffix in (".msa", ".csv"):
        return _spectra(cube, of, target, overwrite)
    if suffix in (".tif", ".tiff"):
        return _maps(cube, of, target, overwrite)
    if suffix in (".nxs", ".nexus"):
        from emcube.interop.nexus import write_nexus

        lost = write_nexus(target, cube=cube, result=of, fields=fields, overwrite=overwrite)
        return Exported((target,), tuple(lost))
    return _hyperspy(cube, of, target, overwrite)


def _given(what: Any, result: Any) -> tuple[xr.DataArray | None, Result | None]:
    """The cube and the result that are meant, opened."""
    if isinstance(result, str | os.PathLike):
        result = open_result(os.fspath(result))
    if isinstance(what, str | os.PathLike):
        what = _opened(os.fspath(what))
    if isinstance(what, Result):
        if result is not None:
            raise InputError(
                "a result was given twice", hint="give the cube first, then its result"
            )
        return None, what
    if not isinstance(what, xr.DataArray):
        raise InputError(
            f"got {type(what).__name__}, expected a cube, a result or the path of one",
            hint="label plain arrays with emcube.make_cube(counts, dims=...)",
        )
    return what, result


def _opened(address: str) -> Any:
    from emcube.results.remote import read_remote_root
    from emcube.results.tree import read_root
    from emcube.sources import open as open_cube

    place = local_part(address)
    root = read_remote_root(place) if is_url(place) else read_root(Path(place))
    return open_cube(address) if root is None else open_result(place)


def with_learning(
    cube: xr.DataArray, result: Result | None
) -> tuple[xr.DataArray, dict[str, Any], list[str]]:
    """The cube as a result's steps saw it, the result as learning results, and what these lose.

    Raises
    ------
    InputError
        The result is of another cube.
    """
    if result is None:
        return cube, {}, []
    from emcube.interop.learning import learning_of_result

    _require_same(cube, result)
    prepared = _prepared(cube, result)
    learning, lost = learning_of_result(result, prepared)
    return prepared, learning, lost


def _require_same(cube: xr.DataArray, result: Result) -> None:
    """Refuse a cube from a store that is not the one the result is of."""
    from emcube.store import is_store, read_digest

    place = cube.encoding.get("source")
    expected = result.provenance["input"].get("digest")
    if place is None or expected is None or not is_store(place):
        return
    found = read_digest(place)
    if found != expected:
        raise InputError(
            f"the result at {result.location} is of another cube: its input has the digest {expected}, "
            f"{place} has {found}",
            hint="give the cube that the recipe was run on",
        )


def _prepared(cube: xr.DataArray, result: Result) -> xr.DataArray:
    """Do with a cube what the recipe did before its first step."""
    if not result.recipe.get("prepare") or cube.shape == tuple(result.provenance["cube"]["shape"]):
        return cube
    from emcube.recipe import Recipe
    from emcube.recipe.prepare import prepare

    recipe = Recipe.from_dict(result.recipe)
    prepared: xr.DataArray = prepare(cube, recipe.prepare).cube
    return prepared


def _hyperspy(
    cube: xr.DataArray | None, result: Result | None, path: Path, overwrite: bool
) -> Exported:
    from emcube.interop.hierarchy import write_hspy, write_zspy
    from emcube.interop.signal import describe_signal

    if cube is None:
        raise InputError(
            f"{str(path)!r}: HyperSpy keeps results with their signal, got a result alone",
            hint="give the cube too: emcube.export(cube, path, result=result)",
        )
    cube, learning, lost = with_learning(cube, result)
    tree = describe_signal(cube, learning)
    write = write_hspy if path.suffix.lower() == ".hspy" else write_zspy
    write(tree, path, overwrite=overwrite)
    return Exported((path,), (*tree.lost, *lost))


def _spectra(
    cube: xr.DataArray | None, result: Result | None, path: Path, overwrite: bool
) -> Exported:
    from emcube.results.files import spectra_writer

    write_spectra = spectra_writer(path.suffix.lower())
    if cube is not None:
        if result is not None:
            raise InputError(
                f"{str(path)!r}: spectra are those of a cube or of a result, got both",
                hint="give the result alone",
            )
        files, lost = write_spectra(cube, path, overwrite=overwrite)
        return Exported(tuple(files), tuple(lost))
    assert result is not None
    result.require_complete("an export of spectra")
    files, lost = [], []
    for step, spectra in _spectra_of(result):
        metadata = {**result.metadata, "title": step}
        labelled = spectra.assign_attrs(metadata=metadata)
        named = path.with_name(f"{path.stem}-{step}{path.suffix}")
        written, missing = write_spectra(labelled, named, overwrite=overwrite)
        files += written
        lost += missing
    if not files:
        raise InputError(
            f"the result at {result.location} has no step with spectra",
            hint="expected a step with components or clusters",
        )
    lost.append("loadings, labels, recipe and provenance: spectra only")
    return Exported(tuple(files), tuple(dict.fromkeys(lost)))


def _maps(
    cube: xr.DataArray | None, result: Result | None, path: Path, overwrite: bool
) -> Exported:
    from emcube.results.files import maps_of, write_tiff

    if cube is not None:
        if result is not None:
            raise InputError(
                f"{str(path)!r}: maps are those of a cube or of a result, got both",
                hint="give the result alone",
            )
        files, lost = write_tiff(cube, path, overwrite=overwrite)
        return Exported(tuple(files), tuple(lost))
    assert result is not None
    result.require_complete("an export of maps")
    files, lost = [], []
    for name, array in maps_of(result):
        if array.ndim - bool({"component", "cluster"} & set(array.dims)) < 2:
            lost.append(f"{name}: a line scan is no image (write it to .csv with save_maps)")
            continue
        named = path.with_name(f"{path.stem}-{name.replace('/', '-')}{path.suffix}")
        notes = {"run_id": result.run_id, "variable": name}
        written, missing = write_tiff(array, named, overwrite=overwrite, notes=notes)
        files += written
        lost += missing
    if not files:
        raise InputError(
            f"the result at {result.location} has no maps",
            hint="expected two navigation dims or more",
        )
    lost.append("components, recipe and provenance: maps only")
    return Exported(tuple(files), tuple(dict.fromkeys(lost)))


def _spectra_of(result: Result) -> Sequence[tuple[str, xr.DataArray]]:
    """Component spectra and cluster centers of each step that has some over energies."""
    found = []
    for step in result.steps:
        for name in ("components", "cluster_centers"):
            node = result[step]
            if name in node and node[name].ndim == 2 and node[name].dims[-1] != "component":
                found.append((step, node[name]))
    return [(step, array) for step, array in found if not str(array.dims[-1]).startswith("input_")]
