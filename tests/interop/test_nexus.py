"""NeXus files after NXem: what is known has its place, what is demanded and unknown is told."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.errors import AmbiguousSignalError, InputError, ReadError
from emcube.interop.nexus import REQUIRED
from emcube.store import compute_digest
from tests.interop.conftest import METADATA

STATED = {
    "start_time": "2026-02-03T04:05:06+01:00",
    "sample/is_simulation": False,
    "sample/preparation_date": "2026-01-31T12:00:00+00:00",
    "measurement/instrument/fabrication/vendor": "Thermo Fisher",
    "measurement/instrument/fabrication/model": "Titan",
}


def classes(file: h5py.File) -> dict[str, str]:
    found = {"/": file.attrs["NX_class"]}
    file.visititems(
        lambda name, node: (
            found.__setitem__(name, node.attrs["NX_class"])
            if isinstance(node, h5py.Group)
            else None
        )
    )
    return found


def check_data(group: h5py.Group) -> None:
    """The rules of NXdata: signal, axes and their indices exist, and lengths fit."""
    signal = group[group.attrs["signal"]]
    axes = list(group.attrs["axes"])
    assert signal.ndim == len(axes)
    for i, name in enumerate(axes):
        assert group[name].shape == (signal.shape[i],)
        assert int(group.attrs[f"{name}_indices"]) == i
    assert "units" in signal.attrs
    assert "long_name" in signal.attrs


def test_a_cube(tmp_path: Path, cube) -> None:
    written = em.export(cube, tmp_path / "map.nxs", fields=STATED)
    assert written.lost == ()
    with h5py.File(tmp_path / "map.nxs") as file:
        assert all(kind.startswith("NX") for kind in classes(file).values())
        entry = file["entry1"]
        for name in ("definition", *REQUIRED):
            assert name in entry, name
        assert entry["definition"][()] == b"NXem"
        assert entry["sample/atom_types"][()] == b"Fe, O"
        spectra = entry["measurement/event1/spectrum1/spectrum_2d"]
        check_data(spectra)
        np.testing.assert_array_equal(spectra["intensity"][...], cube.values)
        assert list(spectra.attrs["axes"]) == ["axis_j", "axis_i", "axis_energy"]
        np.testing.assert_array_equal(spectra["axis_energy"][...], cube["energy"].values)
        assert spectra["axis_energy"].attrs["units"] == "keV"
        image = entry["measurement/event1/image_HAADF/image_2d"]
        check_data(image)
        np.testing.assert_array_equal(image["real"][...], cube["HAADF"].values)
        # What is no image lies in a collection, which NeXus leaves to programs.
        kept = entry["coordinates"]
        assert kept["run"][()] == 7
        assert kept["phase"].asstr()[...].tolist() == cube["phase"].values.tolist()
        attributes = json.loads(entry["attributes/json"][()])
        assert attributes["coordinates"]["HAADF"]["long_name"] == "HAADF"
        voltage = entry["measurement/event1/instrument/ebeam_column/electron_source/voltage"]
        assert (voltage[()], voltage.attrs["units"]) == (200.0, "kV")
        assert json.loads(entry["metadata/json"][()]) == METADATA
        assert json.loads(entry["original_metadata/json"][()])["a/b"] == "slash"
        # A viewer goes from default to default and finds the spectra.
        group = file
        while "default" in group.attrs:
            group = group[group.attrs["default"]]
        assert group.name == spectra.name


def test_what_nobody_stated_is_told_and_not_made_up(tmp_path: Path, cube) -> None:
    cube.attrs["metadata"] = {"modality": "EDS"}
    lost = em.export(cube, tmp_path / "map.nxs").lost
    for name in REQUIRED:
        assert any(f"NXem demands {name}," in line for line in lost), name
    with h5py.File(tmp_path / "map.nxs") as file:
        assert not any(name in file["entry1"] for name in REQUIRED)


@pytest.mark.parametrize(
    ("dims", "sig", "where", "signal"),
    [
        (("energy",), ("energy",), "spectrum1/spectrum_0d", "intensity"),
        (("x", "energy"), ("energy",), "spectrum1/spectrum_1d", "intensity"),
        (("z", "y", "x", "energy"), ("energy",), "spectrum1/spectrum_3d", "intensity"),
        (("tilt", "y", "x", "energy"), ("energy",), "spectrum1/stack_2d", "intensity"),
        (("y", "x"), (), "image1/image_2d", "real"),
        (("tilt", "y", "x"), (), "image1/stack_2d", "real"),
        (("y", "x", "ky", "kx"), ("ky", "kx"), "image1/image_4d", "real"),
        (("x", "wavelength"), ("wavelength",), "spectrum1/data", "intensity"),
    ],
)
def test_cubes_of_every_kind(tmp_path: Path, dims, sig, where: str, signal: str) -> None:
    shape = tuple(range(3, 3 + len(dims)))
    cube = em.make_cube(np.random.default_rng(0).random(shape), dims=dims, sig_dims=sig)
    em.export(cube, tmp_path / "a.nxs")
    with h5py.File(tmp_path / "a.nxs") as file:
        group = file[f"entry1/measurement/event1/{where}"]
        check_data(group)
        np.testing.assert_array_equal(group[signal][...], cube.values)
    back = em.open(tmp_path / "a.nxs")
    assert compute_digest(back) == compute_digest(cube)


def test_a_result_and_its_cube(tmp_path: Path, plain) -> None:
    steps = [
        {"estimate_n_components": {}},
        {"pca": {"n_components": 3}},
        {"nmf": {"n_components": 2, "random_state": 0}},
        {"kmeans": {"n_clusters": 2, "on": "nmf", "random_state": 0}},
    ]
    result = em.run({"emcube": 1, "steps": steps}, plain, out=tmp_path / "result")
    em.export(plain, tmp_path / "both.nxs", result=result)
    em.export(result, tmp_path / "result.nxs")
    for name in ("both", "result"):
        with h5py.File(tmp_path / f"{name}.nxs") as file:
            roi = file["entry1/roi1"]
            for step in result.steps:
                for key, array in result[step].data_vars.items():
                    node = roi[f"{step}/{key}"]
                    if array.ndim:
                        check_data(node)
                        node = node["data"]
                    np.testing.assert_array_equal(node[()], array.values)
            assert roi["provenance/run_id"][()].decode() == result.run_id
            assert json.loads(roi["provenance/recipe"][()]) == result.recipe
            assert ("measurement" in file["entry1"]) == (name == "both")


@pytest.mark.parametrize("with_result", [False, True])
def test_a_cube_comes_back_whole(tmp_path: Path, cube, plain, with_result: bool) -> None:
    result = None
    if with_result:
        cube = plain
        steps = [{"nmf": {"n_components": 2, "random_state": 0}}]
        result = em.run({"emcube": 1, "steps": steps}, cube, out=tmp_path / "result")
    cube = cube.assign_coords(
        when=("y", np.arange(12).astype("M8[s]").astype("M8[ns]")),
        good=(("y", "x"), cube.values.sum(-1) > 3),
    )
    em.export(cube, tmp_path / "map.nxs", result=result)
    back = em.open(tmp_path / "map.nxs")
    assert back.chunks is not None
    assert compute_digest(back) == compute_digest(cube)
    assert back.dtype == cube.dtype
    assert set(back.coords) == set(cube.coords)
    for name in cube.coords:
        xr.testing.assert_identical(back[name].load().variable, cube[name].variable)
    found = dict(back.attrs["metadata"])
    assert found.pop("source")["extra"]["earlier"] == METADATA["source"]
    assert found == {k: v for k, v in METADATA.items() if k != "source"}
    assert back.attrs["units"] == "counts"
    assert back.attrs["original_metadata"] == json.loads(
        json.dumps(cube.attrs["original_metadata"])
    )
    if with_result:
        assert em.open(tmp_path / "map.nxs", "/entry1/roi1/nmf/loadings/data").shape[:2] == (12, 14)


def test_default_leads_to_the_cube_of_any_file(tmp_path: Path) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO reads NeXus files of others")
    values = np.random.default_rng(0).integers(0, 9, (2, 4, 5, 6))
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        for i, name in enumerate(("first", "second")):
            group = file.create_group(f"entry/deep/{name}")
            group.attrs.update({"NX_class": "NXdata", "signal": "data", "axes": ["v", "u", "e"]})
            group["data"] = values[i]
            for axis, n in zip(("v", "u", "e"), (4, 5, 6), strict=True):
                group[axis] = np.arange(n) * 0.5
        file["entry"].attrs["NX_class"] = "NXentry"
        file["entry/deep"].attrs["NX_class"] = "NXsubentry"
    with pytest.raises(AmbiguousSignalError):
        em.open(tmp_path / "a.nxs")
    with h5py.File(tmp_path / "a.nxs", "a") as file:
        file.attrs["default"] = "entry"
        file["entry"].attrs["default"] = "deep"
        file["entry/deep"].attrs["default"] = "second"
    np.testing.assert_array_equal(em.open(tmp_path / "a.nxs").values, values[1])


def test_a_file_that_lost_a_part_says_so(tmp_path: Path, cube) -> None:
    em.export(cube, tmp_path / "map.nxs")
    with h5py.File(tmp_path / "map.nxs", "a") as file:
        del file["entry1/measurement/event1/image_HAADF"]
    with pytest.raises(ReadError, match="cannot be read back"):
        em.open(tmp_path / "map.nxs")


def test_fields_are_plain_values(tmp_path: Path, cube) -> None:
    for fields in ({"a": [1, 2]}, {"../b": 1}, {"": 1}):
        with pytest.raises(InputError, match="fields"):
            em.export(cube, tmp_path / "a.nxs", fields=fields)
    assert not list(tmp_path.iterdir())


def test_nexusformat_finds_the_plot(tmp_path: Path, cube) -> None:
    nx = pytest.importorskip(
        "nexusformat.nexus", reason="nexusformat, NeXus' own reader, is not installed"
    )
    em.export(cube, tmp_path / "map.nxs", fields=STATED)
    with nx.nxopen(str(tmp_path / "map.nxs")) as root:
        plotted = root.plottable_data
        assert plotted.nxsignal.shape == cube.shape
        np.testing.assert_array_equal(plotted.nxaxes[-1].nxvalue, cube["energy"].values)
