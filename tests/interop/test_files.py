"""Files for HyperSpy: written without it, read back whole, and what does not fit is told."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

import emcube as em
from emcube.cli import main
from emcube.errors import InputError, MissingDependencyError, StoreError
from emcube.store import compute_digest, write_cube
from tests.interop.conftest import METADATA

HAS_ROSETTA = True
try:
    import rsciio  # noqa: F401
except ImportError:
    HAS_ROSETTA = False

SUFFIXES = [
    ".zspy",
    pytest.param(
        ".hspy", marks=pytest.mark.skipif(not HAS_ROSETTA, reason="RosettaSciIO reads .hspy")
    ),
]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("lazy", [False, True])
def test_a_cube_comes_back_whole(tmp_path: Path, cube, suffix: str, lazy: bool) -> None:
    given = cube.chunk({"y": 5, "x": 14, "energy": 40}) if lazy else cube
    written = em.export(given, tmp_path / f"map{suffix}")
    assert written.files == (tmp_path / f"map{suffix}",)
    back = em.open(written.files[0])
    # The digest covers dims, coordinates, units and values to the last bit.
    assert compute_digest(back) == compute_digest(cube)
    assert back.dtype == cube.dtype
    assert set(back.coords) == set(cube.coords)
    for name in cube.coords:
        xr.testing.assert_identical(back[name].load().variable, cube[name].variable)
    found = dict(back.attrs["metadata"])
    source = found.pop("source")
    assert source["extra"]["earlier"] == METADATA["source"]
    assert found == {k: v for k, v in METADATA.items() if k != "source"}
    assert back.attrs["units"] == "counts"
    original = back.attrs["original_metadata"]
    assert original["Header"]["Name"] == "µm"
    assert original["Header"]["Gains"] == [1.5, 2.5]
    assert original["Header"]["Flags"] == [True, None]
    assert [line["energy"] for line in original["Lines"]] == [float(i) for i in range(12)]
    assert original["a-b"] == "slash"
    assert written.lost == (
        "original_metadata.'a/b': is called 'a-b', because no name in a file holds that",
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("dims", "sig", "shape"),
    [
        (("energy",), ("energy",), (30,)),
        (("x", "energy"), ("energy",), (5, 30)),
        (("tilt", "y", "x", "energy"), ("energy",), (2, 3, 4, 30)),
        (("y", "x", "ky", "kx"), ("ky", "kx"), (3, 4, 6, 5)),
        (("y", "x"), (), (6, 7)),
        (("y", "x", "component"), ("component",), (4, 3, 2)),
        (("time", "y", "x", "wavelength"), ("wavelength",), (2, 3, 4, 9)),
    ],
)
def test_cubes_of_every_kind(tmp_path: Path, suffix: str, dims, sig, shape) -> None:
    rng = np.random.default_rng(1)
    units = {"energy": "eV", "x": "um", "y": "nm", "tilt": "deg", "ky": "mrad", "kx": "mrad"}
    units |= {"time": "s", "wavelength": "nm"}
    cube = em.make_cube(
        rng.random(shape, dtype=np.float32),
        dims=dims,
        sig_dims=sig,
        coords={d: np.linspace(0.1, 1.3, n) for d, n in zip(dims, shape, strict=True)},
        units={d: units[d] for d in dims if d in units},
    )
    (file,) = em.export(cube, tmp_path / f"a{suffix}").files
    back = em.open(file)
    assert (back.dims, back.em.sig_dims) == (dims, sig)
    assert compute_digest(back) == compute_digest(cube)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_and_dates_on_axes(tmp_path: Path, suffix: str) -> None:
    cube = em.make_cube(
        np.arange(24.0).reshape(3, 2, 4), dims=("time", "x", "line"), sig_dims=("line",)
    ).assign_coords(
        line=["Fe_Ka", "O_Ka", "Si_Ka", "µ"],
        time=np.array(["2026-01-01T00", "2026-01-01T01", "2026-01-02"], "datetime64[ns]"),
    )
    (file,) = em.export(cube, tmp_path / f"a{suffix}").files
    back = em.open(file)
    assert back["line"].values.tolist() == ["Fe_Ka", "O_Ka", "Si_Ka", "µ"]
    np.testing.assert_array_equal(back["time"].values, cube["time"].values)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_changed_in_the_file_stays_changed(tmp_path: Path, cube, suffix: str) -> None:
    """Whatever HyperSpy, or anybody, changes in its own entries wins over what emcube wrote beside."""
    (file,) = em.export(cube, tmp_path / f"map{suffix}").files
    if suffix == ".hspy":
        with h5py.File(file, "r+") as opened:
            _change(
                opened["Experiments/oxide on iron"],
                lambda group, values: group.attrs.update(values),
            )
    else:
        group = zarr.open_group(str(file), mode="r+")["Experiments/oxide on iron"]
        _change(group, lambda group, values: group.update_attributes(values))
    back = em.open(file)
    found = back.attrs["metadata"]
    assert found["beam_energy_keV"] == 80.0
    assert found["instrument"] == "Titan"
    assert found["detector"]["elevation_deg"] == 25.0
    assert found["detector"]["solid_angle_sr"] == 0.7
    assert found["extra"] == {"operator": "A. B."}
    # The energy axis was calibrated anew; the others are what they were.
    np.testing.assert_allclose(back["energy"].values, 0.2 + 0.02 * np.arange(40))
    np.testing.assert_array_equal(back["x"].values, cube["x"].values)
    assert "HAADF" in back.coords


def _change(group, update) -> None:
    tem = group["metadata/Acquisition_instrument/TEM"]
    update(tem, {"beam_energy": 80.0})
    update(tem["Detector/EDS"], {"elevation_angle": 25.0})
    update(group["axis-2"], {"offset": 0.2})


@pytest.mark.parametrize("suffix", [".hspy", ".zspy"])
def test_what_does_not_fit_is_told(tmp_path: Path, cube, suffix: str, monkeypatch) -> None:
    monkeypatch.setattr("emcube.interop.signal.MAX_COORD", 1000)
    cube.attrs["original_metadata"] = {"text": "x" * 70_000, "huge": 2**70, "": 1}
    lost = "\n".join(em.export(cube, tmp_path / f"a{suffix}").lost)
    assert "coordinate 'HAADF': 1344 bytes" in lost
    assert "original_metadata.text: 70000 bytes" in lost
    assert "does not fit 64 bits" in lost
    assert "a name that no file can hold" in lost
    cube.attrs["metadata"]["extra"] = {"notes": "x" * 70_000}
    lost = "\n".join(em.export(cube, tmp_path / f"b{suffix}").lost)
    assert "at most 60000 are kept in metadata" in lost


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_that_files_cannot_hold(tmp_path: Path, suffix: str) -> None:
    """Cyrillic dims, a slash in a dim, a title of 4 kB, NUL and half a surrogate: read back, or told."""
    cube = em.make_cube(
        np.arange(60.0).reshape(3, 4, 5),
        dims=("höhe/µm", "ширина", "энергия"),
        sig_dims=("энергия",),
        coords={"höhe/µm": [5.0, 2.0, 1.0]},
        units={"ширина": "µm"},
        metadata={"title": "µ/\n" * 1000},
    )
    cube.attrs["original_metadata"] = {"a": "x\0y", "b\0c": [["p", "q\udcff"], [1, 2]], "n": 1}
    written = em.export(cube, tmp_path / f"a{suffix}")
    back = em.open(written.files[0])
    assert back.dims == cube.dims
    assert compute_digest(back) == compute_digest(cube)
    assert back.attrs["metadata"]["title"] == cube.attrs["metadata"]["title"]
    assert back.attrs["original_metadata"] == {
        "a": "x\ufffdy",
        "b-c": [["p", "q\ufffd"], [1, 2]],
        "n": 1,
    }
    assert len(written.lost) == 3


def test_addresses_are_no_files(tmp_path: Path, cube, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("s3://bucket/map.hspy", "https://host/map.nxs", Path("s3://bucket/map.zspy")):
        with pytest.raises(StoreError, match="got an address"):
            em.export(cube, path)
    assert not list(tmp_path.iterdir())
    (file,) = em.export(cube, f"file://{tmp_path}/map.hspy").files
    assert file == tmp_path / "map.hspy"


def test_existing_files(tmp_path: Path, cube) -> None:
    for suffix in (".hspy", ".zspy", ".nxs"):
        path = tmp_path / f"map{suffix}"
        em.export(cube, path)
        with pytest.raises(StoreError, match="it exists"):
            em.export(cube, path)
        em.export(cube.isel(x=slice(5)), path, overwrite=True)
    assert em.open(tmp_path / "map.zspy").sizes["x"] == 5
    other = tmp_path / "other.zspy"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="never replaced"):
        em.export(cube, other, overwrite=True)
    assert (other / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("suffix", [".hspy", ".zspy", ".nxs"])
def test_a_failed_export_leaves_nothing(tmp_path: Path, cube, suffix: str) -> None:
    import dask.array as da

    def fail(block: np.ndarray) -> np.ndarray:
        raise RuntimeError("the source is gone")

    broken = cube.copy(data=da.map_blocks(fail, da.from_array(cube.values), dtype=cube.dtype))
    with pytest.raises(RuntimeError, match="the source is gone"):
        em.export(broken, tmp_path / f"map{suffix}")
    assert not list(tmp_path.iterdir())


def test_wrong_use(tmp_path: Path, cube) -> None:
    for what, path, said in (
        (cube, "map.png", "nothing is exported to '.png'"),
        (cube, "map", "a name without suffix"),
        (np.ones(3), "map.hspy", "expected a cube, a result or the path of one"),
    ):
        with pytest.raises(InputError, match=said):
            em.export(what, tmp_path / path)
    with pytest.raises(InputError, match="for NeXus files"):
        em.export(cube, tmp_path / "map.hspy", fields={"a": 1})


def test_the_command_line(tmp_path: Path, cube, capsys) -> None:
    store = write_cube(cube, tmp_path / "map.zarr")
    assert main(["export", str(store), str(tmp_path / "map.zspy")]) == 0
    shown = capsys.readouterr().out
    assert "map.zspy" in shown
    assert "not in it: original_metadata.'a/b'" in shown
    assert main(["export", str(store), str(tmp_path / "map.nxs"), "--json"]) == 0
    assert '"lost"' in capsys.readouterr().out
    assert main(["export", str(store), str(tmp_path / "map.png")]) == 2


def test_nothing_needs_hyperspy(tmp_path: Path, cube, monkeypatch) -> None:
    """Where HyperSpy is not installed files are written all the same, and a signal is refused clearly."""
    monkeypatch.setitem(sys.modules, "hyperspy", None)
    for suffix in (".hspy", ".zspy"):
        assert em.export(cube, tmp_path / f"a{suffix}").files[0].exists()
    with pytest.raises(MissingDependencyError, match="pip install hyperspy"):
        cube.em.to_hyperspy()
