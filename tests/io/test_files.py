"""Plain arrays, HDF5, zspy: files made here, read back."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import zarr

import emcube as em
from emcube.errors import AmbiguousSignalError, MissingDependencyError, ReadError
from emcube.io.readers import FORMATS, sniff

COUNTS = np.random.default_rng(0).integers(0, 9, (4, 3, 16)).astype("u1")


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "counts.npy", COUNTS)
    cube = em.open(tmp_path / "counts.npy")
    assert cube.dims == ("y", "x", "channel")
    assert cube.attrs["sig_dims"] == ["channel"]
    assert cube.dtype == np.uint8
    assert cube.chunks is not None
    assert (cube.values == COUNTS).all()
    assert (pickle.loads(pickle.dumps(cube)).values == COUNTS).all()


def test_npy_of_objects_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(ReadError, match="cannot be read as a NumPy array"):
        em.open(tmp_path / "o.npy")
    np.save(tmp_path / "c.npy", np.zeros(3, complex))
    with pytest.raises(ReadError, match=r"complex128.*make_cube"):
        em.open(tmp_path / "c.npy")


def test_mat_counts_down_the_columns_first(tmp_path: Path) -> None:
    lines, cols, bands = 4, 3, 16
    cube = COUNTS.astype(float)
    flat = np.stack([cube[p % lines, p // lines] for p in range(lines * cols)], axis=1)
    assert flat.shape == (bands, lines * cols)
    content = {
        "Y": flat,
        "lines": lines,
        "cols": cols,
        "GT": np.ones((2, bands)),
        "S": cube[..., :2],
    }
    scipy.io.savemat(tmp_path / "m.mat", content)
    opened = em.open(tmp_path / "m.mat")
    assert opened.dims == ("y", "x", "band")
    assert (opened.values == cube).all()
    assert em.open(tmp_path / "m.mat", "GT").dims == ("component", "band")
    assert em.open(tmp_path / "m.mat", "S").attrs["sig_dims"] == ["component"]
    assert em.sources.signals(tmp_path / "m.mat")[0].name == "Y"


def test_mat_without_layout(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "m.mat", {"cube": COUNTS, "n": 3})
    assert em.open(tmp_path / "m.mat").shape == COUNTS.shape


def test_csv_of_spectra(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("keV, Ni ,Cr\n0.0,1,\n0.1,2,5\n0.2,3,nan\n")
    cube = em.open(path)
    assert cube.dims == ("component", "energy")
    assert cube.component.values.tolist() == ["Ni", "Cr"]
    assert cube.energy.attrs["units"] == "keV"
    assert np.array_equal(cube.values, [[1, 2, 3], [np.nan, 5, np.nan]], equal_nan=True)


@pytest.mark.parametrize("text", ["keV,a\n1,2\n3\n", "just\nwords\nhere\n", "keV,a\n1,x\n2,3\n"])
def test_csv_that_is_no_table(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ReadError, match="table of spectra"):
        em.open(tmp_path / "s.csv")


def test_angles(tmp_path: Path) -> None:
    (tmp_path / "a.rawtlt").write_text(" -30.00\n  0.00\n 30.00\n")
    assert em.open(tmp_path / "a.rawtlt").tilt.values.tolist() == [-30, 0, 30]
    (tmp_path / "b.rawtlt").write_text("no angles")
    with pytest.raises(ReadError, match="one number a line"):
        em.open(tmp_path / "b.rawtlt")


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("run/data", data=np.arange(240, dtype=">u2").reshape(2, 3, 5, 8))
        for i, (name, unit) in enumerate(
            [("y", "um"), ("x", "um"), ("ky", "1/nm"), ("kx", "1/nm")]
        ):
            scale = file.create_dataset(f"run/axis{i}", data=0.5 * np.arange(data.shape[i]))
            scale.make_scale(name)
            scale.attrs["units"] = unit
            data.dims[i].attach_scale(scale)
            data.dims[i].label = name
        file.create_dataset("run/exposure", data=np.ones((2, 3)))
        file.create_dataset("run/note", data="text")
    return path


def test_hdf5_by_path(hdf5: Path) -> None:
    cube = em.open(hdf5, name="/run/data")
    assert cube.dims == ("y", "x", "ky", "kx")
    assert cube.attrs["sig_dims"] == ["ky", "kx"]
    assert cube.dtype == np.dtype("u2")
    assert cube.dtype.isnative
    assert cube.x.values.tolist() == [0, 500, 1000]
    assert cube.x.attrs["units"] == "nm"
    assert cube.kx.attrs["units"] == "1/nm"
    assert (cube.values == np.arange(240).reshape(2, 3, 5, 8)).all()
    assert (pickle.loads(pickle.dumps(cube)).values == cube.values).all()


def test_hdf5_finds_what_is_clearly_the_data(hdf5: Path) -> None:
    assert em.open(hdf5).shape == (2, 3, 5, 8)
    assert {s.name for s in em.sources.signals(hdf5)} == {"/run/data", "/run/exposure"}
    assert em.open(hdf5, "/run/exposure").dims == ("y", "x")


def test_hdf5_asks_where_it_is_not_clear(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a"] = COUNTS
        file["b"] = COUNTS
    with pytest.raises(AmbiguousSignalError, match=r"2 datasets.*/a, /b") as caught:
        em.open(tmp_path / "two.h5")
    assert caught.value.names == ["/a", "/b"]
    assert [s.name for s in em.sources.signals(tmp_path / "two.h5")] == ["/a", "/b"]
    with pytest.raises(ReadError, match="no dataset '/c'"):
        em.open(tmp_path / "two.h5", "/c")


def test_hdf5_axes_beside_the_data(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "emd.h5", "w") as file:
        file["e/data"] = COUNTS
        for i, (name, unit) in enumerate([("scanY", "nm"), ("scanX", "nm"), ("Energy", "keV")]):
            file[f"e/dim{i + 1}"] = 0.1 * np.arange(COUNTS.shape[i])
            file[f"e/dim{i + 1}"].attrs.update({"name": name, "units": unit})
    cube = em.open(tmp_path / "emd.h5")
    assert cube.dims == ("y", "x", "energy")
    assert cube.energy.attrs["units"] == "keV"


@pytest.mark.parametrize("zipped", [False, True])
def test_zspy(tmp_path: Path, zipped: bool) -> None:
    folder = tmp_path / "f.zspy"
    root = zarr.open_group(folder, mode="w", zarr_format=2)
    root.attrs.update({"file_format": "ZSpy", "file_format_version": "3.3"})
    signal = root.require_group("Experiments/Pt map")
    signal.create_array("data", shape=COUNTS.shape, chunks=(2, 3, 16), dtype="u1")[:] = COUNTS
    axes = [("y", 0.5, "nm", True), ("x", 0.5, "nm", True), ("Energy", 0.01, "keV", False)]
    for i, (name, scale, unit, navigate) in enumerate(axes):
        signal.create_group(f"axis-{i}").attrs.update(
            {
                "name": name,
                "scale": scale,
                "offset": 0.0,
                "units": unit,
                "size": COUNTS.shape[i],
                "navigate": navigate,
            }
        )
    signal.create_group("metadata/General").attrs["title"] = "Pt map"
    signal.create_group("metadata/Signal").attrs["signal_type"] = "EDS_TEM"
    signal["metadata"].create_group("Acquisition_instrument/TEM").attrs["beam_energy"] = 200.0
    signal["metadata"].create_group("Sample").create_array("_list_elements", data=np.array([1, 2]))
    path = folder
    if zipped:
        path = tmp_path / "z.zspy"
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.rglob("*"):
                archive.write(file, file.relative_to(folder))
    cube = em.open(path)
    assert cube.dims == ("y", "x", "energy")
    assert cube.name == "Pt map"
    assert cube.attrs["metadata"]["modality"] == "EDS"
    assert cube.attrs["metadata"]["beam_energy_keV"] == 200
    assert cube.dtype == np.uint8
    assert (cube.values == COUNTS).all()
    assert (pickle.loads(pickle.dumps(cube)).values == COUNTS).all()


def test_zspy_with_a_link_that_leads_out(tmp_path: Path) -> None:
    folder, secret = tmp_path / "f.zspy", tmp_path / "secret.bin"
    root = zarr.open_group(folder, mode="w", zarr_format=2)
    root.require_group("Experiments/map")
    secret.write_bytes(b"secret")
    (folder / "Experiments/map/0.0.0").symlink_to(secret)
    with pytest.raises(ReadError, match=r"0\.0\.0 leads out of the folder, to .*secret\.bin"):
        em.open(folder)


def test_zspy_cut_short(tmp_path: Path) -> None:
    (tmp_path / "z.zspy").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    with pytest.raises(ReadError, match="neither"):
        em.open(tmp_path / "z.zspy")
    (tmp_path / "d.zspy").mkdir()
    with pytest.raises(ReadError, match=r"d\.zspy"):
        em.open(tmp_path / "d.zspy")


@pytest.mark.parametrize("row", [f for f in FORMATS if f.magic], ids=lambda f: f.suffixes[0])
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, row: object) -> None:
    path = tmp_path / f"file{row.suffixes[0]}"  # type: ignore[attr-defined]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 2000)
    with pytest.raises(ReadError, match=r"PNG.*expected.*suffix of what it is"):
        em.open(path)


# RosettaSciIO leaves a file open when it gives up on it.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("suffix", [f.suffixes[0] for f in FORMATS])
def test_noise_is_never_a_cube(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(1)
    row = next(f for f in FORMATS if suffix in f.suffixes)
    for n in (1, 7, 60, 500, 5000):
        path = tmp_path / f"n{n}{suffix}"
        head = row.magic[0][1] if row.magic else b""
        path.write_bytes(head + rng.bytes(n))
        with pytest.raises((ReadError, MissingDependencyError)):
            em.open(path)


def test_empty_and_unknown(tmp_path: Path) -> None:
    (tmp_path / "a.bcf").touch()
    with pytest.raises(ReadError, match="empty"):
        em.open(tmp_path / "a.bcf")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ReadError, match=r"unknown kind.*'\.txt'.*text file"):
        em.open(tmp_path / "notes.txt")
    assert sniff(tmp_path / "notes.txt") == "a text file"
    with h5py.File(tmp_path / "odd.xyz", "w") as file:
        file["d"] = COUNTS
    with pytest.raises(ReadError, match=r"HDF5 file.*reader='hdf5'"):
        em.open(tmp_path / "odd.xyz")
    assert em.open(tmp_path / "odd.xyz", reader="hdf5").shape == COUNTS.shape
    with pytest.raises(ReadError, match="no reader 'nonsense'"):
        em.open(tmp_path / "odd.xyz", reader="nonsense")


def test_zip_says_what_it_holds(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("map.emd", b"x")
    with pytest.raises(ReadError, match=r"archive of 1 files \('map.emd'\).*unpack"):
        em.open(tmp_path / "a.zip")
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(ReadError, match="damaged"):
        em.open(tmp_path / "b.zip")


def test_without_rosettasciio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "rsciio", None)
    (tmp_path / "a.bcf").write_bytes(b"AAMVHFSS" + b"\0" * 100)
    with pytest.raises(MissingDependencyError, match=r"emcube\[vendor\]"):
        em.open(tmp_path / "a.bcf")
    (tmp_path / "a.odd").write_bytes(b"?" * 100)
    with pytest.raises(MissingDependencyError, match=r"emcube\[vendor\]"):
        em.open(tmp_path / "a.odd")
    np.save(tmp_path / "a.npy", COUNTS)
    assert em.open(tmp_path / "a.npy").shape == COUNTS.shape


def test_only_one_module_imports_rosettasciio() -> None:
    root = Path(em.__file__).parent
    users = [
        p
        for p in root.rglob("*.py")
        if "import rsciio" in (t := p.read_text()) or "from rsciio" in t
    ]
    assert [p.relative_to(root).as_posix() for p in users] == ["io/rosetta.py"]


def draw(path: Path, how: str, target: str) -> None:
    """Write an HDF5 file, its suffix telling of what kind, whose data come from another file."""
    hspy = path.suffix == ".hspy"
    with h5py.File(path, "w") as file:
        group = file.create_group("Experiments/map" if hspy else "entry/data")
        if hspy:
            file.attrs.update({"file_format": "HyperSpy", "file_format_version": "3.3"})
            for i, n in enumerate(COUNTS.shape):
                axis = group.create_group(f"axis-{i}")
                axis.attrs.update({"_type": "UniformDataAxis", "name": f"a{i}", "size": n})
                axis.attrs.update({"scale": 1.0, "offset": 0.0, "units": "nm", "navigate": i < 2})
            for name in ("metadata", "original_metadata", "learning_results"):
                group.create_group(name)
        if how == "link":
            group["data"] = h5py.ExternalLink(target, "/x")
        elif how == "virtual":
            layout = h5py.VirtualLayout(COUNTS.shape, "u1")
            layout[...] = h5py.VirtualSource(target, "/x", COUNTS.shape)
            group.create_virtual_dataset("data", layout)
        else:
            group.create_dataset(
                "data", COUNTS.shape, "u1", external=[(target, 0, h5py.h5f.UNLIMITED)]
            )


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".nxs", ".emd", ".hspy", ".oh5", ".mat"])
@pytest.mark.parametrize("how", ["link", "virtual", "external"])
def test_hdf5_never_draws_from_elsewhere(
    tmp_path: Path, suffix: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "fetched"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    if how == "external":
        secret.write_bytes(COUNTS.tobytes())
    else:
        with h5py.File(secret, "w") as file:
            file["x"] = COUNTS
    (folder / "beside").symlink_to(secret)
    monkeypatch.chdir(tmp_path)
    # HDF5 looks for relative names in the current folder, too: secret.bin is there.
    for target in (str(secret), "../secret.bin", "secret.bin", "beside"):
        path = folder / f"map{suffix}"
        draw(path, how, target)
        asks = [{"name": "/entry/data/data"}, {"reader": "hdf5"}, {"reader": "HSPY"}]
        # No reader takes .oh5 unasked.
        for ask in asks if suffix == ".oh5" else [{}, *asks]:
            with pytest.raises(ReadError, match="draws from the file") as caught:
                em.open(path, **ask)
            assert target in str(caught.value)
            assert "EMCUBE_HDF5_LINKS" in str(caught.value)


def test_hdf5_refuses_patterns_of_names(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "map.h5", "w") as file:
        space = h5py.h5s.create_simple((1, 3, 16), (h5py.h5s.UNLIMITED, 3, 16))
        space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), (1, 3, 16), (1, 3, 16))
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        source = h5py.h5s.create_simple((1, 3, 16))
        plist.set_virtual(space, b"secret%b.bin", b"/x", source)
        space.select_all()
        h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT8, space, plist)
    with pytest.raises(ReadError, match=r"'/data' .virtual. draws .* is a pattern"):
        em.open(tmp_path / "map.h5")


def test_hdf5_draws_from_files_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data/1.h5", "w") as file:
        file["x"] = COUNTS
    # A file of the same name in the current folder is another one.
    (tmp_path / "here/data").mkdir(parents=True)
    with h5py.File(tmp_path / "here/data/1.h5", "w") as file:
        file["x"] = COUNTS + 1
    monkeypatch.chdir(tmp_path / "here")
    for how in ("link", "virtual"):
        draw(tmp_path / f"{how}.h5", how, "data/1.h5")
        cube = em.open(tmp_path / f"{how}.h5", name="/entry/data/data")
        assert (cube.values == COUNTS).all()
    # Once more by way of a link, from where its own names lead elsewhere.
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/link.h5").symlink_to(tmp_path / "link.h5")
    draw(tmp_path / "twice.h5", "link", "link.h5")
    draw(tmp_path / "thrice.h5", "link", "sub/link.h5")
    with h5py.File(tmp_path / "thrice.h5", "a") as file:
        file["first"] = h5py.ExternalLink("twice.h5", "/entry/data/data")
    with pytest.raises(ReadError, match=r"sub/link\.h5: .*'data/1\.h5', which is not there"):
        em.open(tmp_path / "thrice.h5", name="/entry/data/data")
    # What lies beside may lead away in its turn.
    with h5py.File(tmp_path / "away.h5", "w") as file:
        file["y"] = COUNTS[::-1]
    with h5py.File(tmp_path / "data/1.h5", "a") as file:
        del file["x"]
        file["x"] = h5py.ExternalLink("../away.h5", "/y")
    for how in ("link", "virtual"):
        with pytest.raises(ReadError, match=r"data/1\.h5: .* leads upwards"):
            em.open(tmp_path / f"{how}.h5", name="/entry/data/data")
    monkeypatch.setenv("EMCUBE_HDF5_LINKS", "anywhere")
    cube = em.open(tmp_path / "link.h5", name="/entry/data/data")
    assert (cube.values == COUNTS[::-1]).all()
