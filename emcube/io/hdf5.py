"""Any HDF5 dataset by its path, with the axes that HDF5 or EMD conventions keep beside it."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.errors import AmbiguousSignalError, MissingDependencyError, ReadError
from emcube.io.axes import Axis, label_array, plan_axes
from emcube.io.lazy import H5Array, as_dask
from emcube.io.links import check_links
from emcube.io.signals import Signal, jsonable

if TYPE_CHECKING:
    import h5py

__all__ = ["is_hyperspy", "open_hdf5", "read_any_hdf5", "read_hdf5"]

#: A dataset counts as the data of a file when no other one comes near it in size.
_CLEARLY = 8


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file to read, after a look at what it draws from other files.

    Raises
    ------
    MissingDependencyError
        h5py is not installed.
    ReadError
        It is not HDF5, was cut short, or draws from files outside of its folder.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: HDF5 files are read by h5py, which is not installed",
            hint='pip install "emcube[vendor]"',
        ) from error
    check_links(path)
    with contextlib.suppress(ImportError):
        # Filters beyond gzip register themselves on import.
        importlib.import_module("hdf5plugin")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ReadError(
            f"{path}: cannot be read as an HDF5 file ({path.stat().st_size} bytes): {error}",
            hint="the file is damaged, cut short or not HDF5; fetch or export it again",
        ) from error


def is_hyperspy(path: Path) -> bool:
    """Tell whether an HDF5 file was written by HyperSpy."""
    with open_hdf5(path) as file:
        return "Experiments" in file and (
            "file_format" in file.attrs or "file_format_version" in file.attrs
        )


def read_hdf5(path: Path, *, name: str | None = None, reader: str | None = None) -> list[Signal]:
    """Read datasets of numbers, lazily.

    Parameters
    ----------
    path : Path
    name : str, optional
        Path of a dataset within the file, as ``"/fpd_expt/fpd_data/data"``; of any number of axes.
        Without it all datasets of two axes or more are listed, and one that is clearly the data (eight
        times larger than the next) counts as the cube of the file.
    reader : str, optional
        Not used: the table of readers leads here.

    Raises
    ------
    AmbiguousSignalError
        No dataset was named and none is clearly the data; ``names`` lists their paths.
    ReadError
        The file is not HDF5, was cut short, or holds no such dataset.
    """
    import h5py

    with open_hdf5(path) as file:
        sizes: dict[str, int] = {}

        def visit(key: str, node: object) -> None:
            if (
                isinstance(node, h5py.Dataset)
                and node.dtype.kind in "iuf"
                and node.ndim >= 2
                and node.size
            ):
                sizes[f"/{key}"] = int(node.size)

        file.visititems(visit)
        if name is not None:
            key = "/" + name.strip("/")
            node = file.get(key)
            if not isinstance(node, h5py.Dataset):
                raise ReadError(
                    f"{path}: there is no dataset {key!r}; the file holds {_listed(sizes)}",
                    hint="name one of these, for example with name="
                    + repr(next(iter(sizes), "/data")),
                )
            if node.dtype.kind not in "iuf" or not node.size:
                raise ReadError(
                    f"{path}: dataset {key!r}: got dtype {node.dtype} and shape {node.shape}, "
                    "expected numbers",
                    hint=f"the datasets of numbers are {_listed(sizes)}",
                )
            sizes = {key: int(node.size)}
        if not sizes:
            raise ReadError(
                f"{path}: the file holds no dataset of numbers with two axes or more",
                hint="name a dataset with name='/path/in/file'",
            )
        order = sorted(sizes, key=lambda k: -sizes[k])
        if len(order) > 1 and sizes[order[0]] < _CLEARLY * sizes[order[1]] and name is None:
            raise AmbiguousSignalError(
                f"{path}: the file holds {len(order)} datasets, expected one that is clearly the data: "
                f"{_listed(sizes)}",
                names=list(sizes),
                hint=f"pick one with name={order[0]!r} (--name on the command line)",
            )
        return [_signal(path, key, file[key], reference=key != order[0]) for key in sizes]


def _listed(sizes: dict[str, int]) -> str:
    keys = list(sizes)
    return (
        ", ".join(keys[:12]) + (f" and {len(keys) - 12} more" if len(keys) > 12 else "") or "none"
    )


def _signal(path: Path, key: str, dataset: h5py.Dataset, *, reference: bool) -> Signal:
    axes = _axes(dataset)
    plan = plan_axes(axes)
    # Behind an external link the dataset's own name is one within another file.
    source = H5Array(path, key, dataset.shape, dataset.dtype)
    sig_axes = [plan.order[plan.dims.index(dim)] for dim in plan.sig_dims]
    # Nothing is known of blocks of a dataset without signal axes; its last two stay together.
    keep = sig_axes or list(range(max(0, dataset.ndim - 2), dataset.ndim))
    array = as_dask(source, keep, dataset.chunks)
    patterns = len(plan.sig_dims) == 2
    metadata: dict[str, Any] = {
        "modality": "4D-STEM"
        if patterns and len(plan.dims) > 2
        else "image"
        if not plan.sig_dims
        else "spectrum",
        "source": {"file": path.name, "format": "HDF5", "reader": "hdf5", "signal": key},
    }
    if plan.notes:
        metadata["extra"] = {"notes": list(plan.notes)}
    units = _word(dataset.attrs.get("units"))
    attrs: dict[str, object] = {
        "units": {
            "counts": "counts",
            "count": "counts",
            "": "counts" if array.dtype.kind in "iu" else "1",
        }.get(units.lower(), units),
        "metadata": metadata,
        "original_metadata": {"attributes": jsonable(dict(dataset.attrs))},
    }
    return Signal.of(label_array(array, plan, attrs), key, reference=reference)


def _word(value: Any) -> str:
    if isinstance(value, (list, tuple, np.ndarray)):
        value = value[0] if len(value) else ""
    return (
        value.decode("utf-8", "replace")
        if isinstance(value, bytes)
        else ""
        if value is None
        else str(value)
    )


def _axes(dataset: h5py.Dataset) -> list[Axis]:
    """Describe the axes by dimension scales, by EMD's ``dim1``, ``dim2``, ... beside the data, or by number.

    What the file does not say is assumed: four axes are y, x of a scan and ky, kx of a pattern;
    three are y, x and a channel; two are an image.
    """
    n = dataset.ndim
    signal = {4: (2, 3), 3: (2,), 1: (0,)}.get(n, ())
    found: list[Axis] = []
    for i in range(n):
        scale = next(iter(dataset.dims[i].values()), None) if dataset.dims[i] else None
        if scale is None:
            beside = dataset.parent.get(f"dim{i + 1}")
            scale = beside if beside is not None and beside.shape == (dataset.shape[i],) else None
        label = _word(dataset.dims[i].label)
        if scale is None or scale.dtype.kind not in "iuf":
            found.append(Axis(dataset.shape[i], label, navigate=i not in signal))
            continue
        name = label or _word(scale.attrs.get("name")) or scale.name.rpartition("/")[2]
        values = np.asarray(scale[()], dtype=np.float64)
        usable = np.isfinite(values).all() and (values.size < 2 or np.ptp(values) > 0)
        found.append(
            Axis(
                dataset.shape[i],
                "" if name.startswith("dim") else name,
                units=_word(scale.attrs.get("units")),
                navigate=i not in signal,
                values=values if usable else None,
            )
        )
    if n == 3 and not any(a.name or a.units for a in found):
        found[2] = Axis(dataset.shape[2], "channel", navigate=False)
    return found


def read_any_hdf5(
    path: Path, *, name: str | None = None, reader: str | None = None
) -> list[Signal]:
    """Read an HDF5 file: HyperSpy's as such, any other one dataset by dataset (see `read_hdf5`)."""
    if is_hyperspy(path):
        from emcube.io.rosetta import read_rosetta

        return read_rosetta(path, name=name, reader="HSPY")
    return read_hdf5(path, name=name)
