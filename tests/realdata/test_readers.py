"""Every instrument file that is at hand loads: shape, dtype, dims, units, elements, values.

The values are held against RosettaSciIO's own, read eagerly and put in order by hand.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import emcube as em
from emcube.errors import AmbiguousSignalError, EmcubeError, ReadError
from emcube.io.rosetta import BcfArray, read_rosetta
from emcube.sources import signals


@dataclass(frozen=True)
class Expected:
    """What a file must give."""

    sizes: dict[str, int]
    n_sig: int
    dtype: str
    units: str
    modality: str
    elements: str = ""
    beam: float | None = None
    images: tuple[str, ...] = ()
    name: str | None = None


FILES: dict[str, Expected] = {
    "eds_sem_dacite_P45/P45_the_default_job.bcf": Expected(
        {"y": 75, "x": 100, "energy": 2048},
        1,
        "u1",
        "nm nm keV",
        "EDS",
        beam=20,
        images=("BSE", "SE"),
    ),
    "eds_standards_K412/Al2O3 std.msa": Expected(
        {"energy": 4096}, 1, "u4", "eV", "EDS", elements="O Al", beam=20
    ),
    "eds_standards_K412/CaF2 std.msa": Expected(
        {"energy": 4096}, 1, "u4", "eV", "EDS", elements="F Ca", beam=20
    ),
    "eds_standards_K412/Fe std.msa": Expected(
        {"energy": 4096}, 1, "u4", "eV", "EDS", elements="Fe", beam=20
    ),
    "eds_standards_K412/III-E K412[0][4].msa": Expected(
        {"energy": 4096}, 1, "u4", "eV", "EDS", elements="O Mg Al Si Ca Fe", beam=20
    ),
    "eds_standards_K412/III-E K412[1][4].msa": Expected(
        {"energy": 4096}, 1, "u4", "eV", "EDS", elements="O Mg Al Si Ca Fe", beam=20
    ),
    "eds_standards_K412/III-E K412[2][4].msa": Expected(
        {"energy": 4096}, 1, "u4", "eV", "EDS", elements="O Mg Al Si Ca Fe", beam=20
    ),
    "eds_standards_K412/III-E K412[3][4].msa": Expected(
        {"energy": 4096}, 1, "u4", "eV", "EDS", elements="O Mg Al Si Ca Fe", beam=20
    ),
    "eds_standards_K412/III-E K412[4][4].msa": Expected(
        {"energy": 4096}, 1, "u4", "eV", "EDS", elements="O Mg Al Si Ca Fe", beam=20
    ),
    "eds_standards_K412/MgO std.msa": Expected(
        {"energy": 4096}, 1, "u4", "eV", "EDS", elements="O Mg", beam=20
    ),
    "eds_standards_K412/SiO2 std.msa": Expected(
        {"energy": 4096}, 1, "u4", "eV", "EDS", elements="O Si", beam=20
    ),
    "eds_tem_fept/bare_core.hspy": Expected(
        {"y": 84, "x": 84, "energy": 992}, 1, "u4", "nm nm keV", "EDS", elements="Fe Pt", beam=200
    ),
    "eds_tem_fept/core_shell.hspy": Expected(
        {"y": 64, "x": 64, "energy": 992}, 1, "u4", "nm nm keV", "EDS", elements="Fe Pt", beam=200
    ),
    "eds_tem_sio2/SiO2 EDS Spectrum Image.hspy": Expected(
        {"y": 128, "x": 128, "energy": 2048}, 1, "u4", "nm nm keV", "EDS", beam=200
    ),
    "eds_tem_sio2/SiO2 HAADF Image.hspy": Expected(
        {"y": 128, "x": 128}, 0, "f4", "nm nm", "image", beam=200
    ),
    "eds_tilt_IDP_L2083/-15.bcf": Expected(
        {"y": 256, "x": 256, "energy": 2048},
        1,
        "u1",
        "nm nm keV",
        "EDS",
        elements="Al C Ca Cr Cu Fe Ga Mg N Na O Pt S Si Ti",
        beam=200,
        images=("HAADF",),
    ),
    "eds_tilt_IDP_L2083/-30.bcf": Expected(
        {"y": 256, "x": 256, "energy": 2048},
        1,
        "u1",
        "nm nm keV",
        "EDS",
        elements="Al C Ca Cr Cu Fe Ga Mg N Na O Pt S Si Ti",
        beam=200,
        images=("HAADF",),
    ),
    "eds_tilt_IDP_L2083/0.bcf": Expected(
        {"y": 256, "x": 256, "energy": 2048},
        1,
        "u1",
        "nm nm keV",
        "EDS",
        elements="Al C Ca Cr Cu Fe Ga Mg N Na O Pt S Si Ti",
        beam=200,
        images=("HAADF",),
    ),
    "eds_tilt_IDP_L2083/15.bcf": Expected(
        {"y": 256, "x": 256, "energy": 2048},
        1,
        "u1",
        "nm nm keV",
        "EDS",
        elements="Al C Ca Cr Cu Fe Ga Mg N Na O Pt S Si Ti",
        beam=200,
        images=("HAADF",),
    ),
    "eds_tilt_IDP_L2083/30.bcf": Expected(
        {"y": 256, "x": 256, "energy": 2048},
        1,
        "u1",
        "nm nm keV",
        "EDS",
        elements="Al C Ca Cr Cu Fe Ga Mg N Na O Pt S Si Ti",
        beam=200,
        images=("HAADF",),
    ),
    "eels/CuZn_EELS_mapping_tutorial.hspy": Expected(
        {"y": 50, "x": 40, "energy": 162}, 1, "i2", "nm nm eV", "EELS", beam=200
    ),
    "eels/CuZn_HAADF.hspy": Expected({"y": 50, "x": 40}, 0, "u2", "nm nm", "image", beam=200),
    "eels/DMReader_SpectrumImage_SI-EELS.dm3": Expected(
        {"y": 49, "x": 6, "energy": 1024}, 1, "f4", "1 1 eV", "EELS", beam=200
    ),
    "eels/EELS_signal.hdf5": Expected(
        {"y": 30, "x": 20, "energy": 791}, 1, "f4", "nm nm eV", "EELS", beam=200
    ),
    "eels/LSMO_linescan.hspy": Expected(
        {"x": 40, "energy": 586}, 1, "f4", "nm eV", "EELS", beam=80
    ),
    "eels/LSMO_linescan_low_loss.hspy": Expected(
        {"x": 40, "energy": 1024}, 1, "f4", "nm eV", "EELS", beam=80
    ),
    "eels/STEM_signal.dm3": Expected({"y": 30, "x": 20}, 0, "f4", "nm nm", "image", beam=200),
    "srm2135c_factors_BSS_digitised.csv": Expected(
        {"component": 3, "energy": 1024}, 1, "f8", "- keV", "spectrum"
    ),
    "stem4d/FPD_HDF5.hdf5": Expected(
        {"y": 16, "x": 16, "ky": 256, "kx": 256}, 2, "u2", "nm nm 1 1", "4D-STEM"
    ),
    "tilt_haadf/HAADF.dm3": Expected(
        {"tilt": 91, "y": 64, "x": 64}, 0, "u2", "deg nm nm", "image", beam=300
    ),
    "tilt_haadf/HAADF.rawtlt": Expected({"tilt": 77}, 0, "f8", "deg", "other"),
    "unmix_gt/Samson.mat": Expected({"y": 95, "x": 95, "band": 156}, 1, "f8", "1 1 1", "spectrum"),
    "vendor/16x16-diffraction_imagel_5x5x256x256_EDS.emi": Expected(
        {"y": 5, "x": 5, "energy": 4000}, 1, "u4", "nm nm eV", "EDS"
    ),
    "vendor/16x16-diffraction_imagel_5x5x256x256_EDS_1.ser": Expected(
        {"y": 5, "x": 5, "energy": 4000}, 1, "u4", "nm nm eV", "EDS"
    ),
    "vendor/16x16-spectrum_image-5x5x1024.emi": Expected(
        {"y": 5, "x": 5, "energy": 1024}, 1, "i4", "nm nm eV", "EELS"
    ),
    "vendor/16x16-spectrum_image-5x5x1024_1.ser": Expected(
        {"y": 5, "x": 5, "energy": 1024}, 1, "i4", "nm nm eV", "EELS"
    ),
    "vendor/30x30_instructively_packed_16bit_compressed.bcf": Expected(
        {"y": 30, "x": 30, "energy": 2048},
        1,
        "u2",
        "nm nm keV",
        "EDS",
        elements="Al C Ca Ce Fe Gd K Mg Na Nd O P Si Sm Th Ti",
        beam=20,
        images=("AsB",),
    ),
    "vendor/EELS_SI.dm4": Expected(
        {"y": 2, "x": 2, "energy": 2048}, 1, "f4", "nm nm eV", "EELS", beam=200
    ),
    "vendor/Elid2Version4.elid": Expected(
        {"y": 16, "x": 16, "energy": 2048},
        1,
        "u4",
        "nm nm keV",
        "EDS",
        beam=15,
        name="Image 1, Map 3",
    ),
    "vendor/HAADFscan.mrc": Expected({"y": 16, "x": 16}, 0, "u2", "nm nm", "image"),
    "vendor/Hitachi_TM3030Plus.bcf": Expected(
        {"y": 240, "x": 320, "energy": 2048},
        1,
        "u1",
        "1 1 keV",
        "EDS",
        elements="Al Cu",
        beam=15,
        images=("SEM",),
    ),
    "vendor/View000_0000006.pts": Expected(
        {"y": 512, "x": 512, "energy": 4096}, 1, "u1", "nm nm keV", "EDS", beam=200
    ),
    "vendor/bcf-edx-ebsd.bcf": Expected(
        {"y": 87, "x": 100, "energy": 2048}, 1, "u1", "nm nm keV", "EDS", beam=20, images=("Ch_0",)
    ),
    "vendor/bcf_v2_50x50px.bcf": Expected(
        {"y": 50, "x": 50, "energy": 2048},
        1,
        "u1",
        "nm nm keV",
        "EDS",
        elements="Ag Al C Cu O",
        beam=20,
        images=("Ch_1_1",),
    ),
    "vendor/bruker_nano.spx": Expected(
        {"energy": 4096}, 1, "u8", "keV", "EDS", elements="Fe S Cu", beam=15
    ),
    "vendor/example2_v3.1.hspy": Expected({"ky": 16, "kx": 16}, 2, "i4", "1/nm 1/nm", "other"),
    "vendor/over16bit.bcf": Expected(
        {"y": 3, "x": 4, "energy": 4096},
        1,
        "u4",
        "nm nm keV",
        "EDS",
        elements="C",
        beam=10,
        images=("BSE",),
    ),
    "vendor/signal1d_10x10-ZipStore.zspy": Expected(
        {"x": 10, "channel": 10}, 1, "i8", "1 1", "spectrum"
    ),
    "vendor/test-EDS_spectrum.dm3": Expected({"energy": 4096}, 1, "u4", "keV", "EDS", beam=200),
    "vendor/test1.blo": Expected(
        {"y": 3, "x": 2, "ky": 144, "kx": 144}, 2, "u1", "nm nm cm cm", "4D-STEM", beam=200
    ),
    "vendor/test_TEM.bcf": Expected(
        {"y": 64, "x": 64, "energy": 2048},
        1,
        "u1",
        "nm nm keV",
        "EDS",
        elements="Cu O Pd Ti",
        beam=200,
        images=("HAADF",),
    ),
    "vendor/test_tvips_2345_000.tvips": Expected(
        {"time": 6, "ky": 4, "kx": 5}, 2, "u2", "1 1/nm 1/nm", "4D-STEM", beam=200
    ),
    "eds_sem_edax/EDAX_EDS_files.zip/SEM_EDS_map.spc": Expected(
        {"energy": 4096}, 1, "u4", "keV", "EDS", elements="Al C Fe N Na O Si", beam=5
    ),
    "eds_sem_edax/EDAX_EDS_files.zip/SEM_EDS_map.spd": Expected(
        {"y": 231, "x": 256, "energy": 2000},
        1,
        "u2",
        "nm nm keV",
        "EDS",
        elements="Al C Fe N Na O Si",
        beam=5,
    ),
    "vendor/Merlin_navigation4x2_ROI.zip/001_4x2_6bit.mib": Expected(
        {"y": 2, "x": 4, "ky": 256, "kx": 256}, 2, "u1", "1 1 1 1", "4D-STEM"
    ),
    "vendor/Merlin_navigation4x2_ROI.zip/002_4x2_6bit_roi128.mib": Expected(
        {"y": 2, "x": 4, "ky": 128, "kx": 256}, 2, "u1", "1 1 1 1", "4D-STEM"
    ),
    "vendor/velox_EELS_EDS.zip/example_velox_EELS_EDS.emd": Expected(
        {"y": 16, "x": 20, "energy": 2048},
        1,
        "u2",
        "nm nm eV",
        "EELS",
        images=("Fe_EELS", "Co_EELS", "O_EELS", "Co", "DF_S", "O", "Fe"),
        name="EELS #1",
    ),
    "vendor/velox_emd_version11.zip/Test SI 16x16 215 kx.emd": Expected(
        {"y": 16, "x": 16, "energy": 4096},
        1,
        "u2",
        "nm nm keV",
        "EDS",
        elements="C O Ca Cu",
        beam=300,
        images=("C", "Ca", "O", "Cu", "HAADF"),
    ),
    "vendor/velox_emd_version11.zip/Test SI 16x16 ReducedData 215 kx.emd": Expected(
        {"energy": 4096}, 1, "u4", "keV", "EDS", elements="C O Ca Cu", beam=300, name="EDS #1"
    ),
}

#: Descriptions, side files and archives: refused with one clear error.
REFUSED = [
    "README.md",
    "eds_sem_dacite_P45/README.md",
    "eds_sem_edax/EDAX_EDS_files.zip",
    "eds_tilt_IDP_L2083/about_dataset.txt",
    "vendor/Merlin_navigation4x2_ROI.zip",
    "vendor/velox_EELS_EDS.zip",
    "vendor/velox_emd_version11.zip",
    "eds_sem_edax/EDAX_EDS_files.zip/Live Map 1_Img.ipr",
    "vendor/Merlin_navigation4x2_ROI.zip/001_4x2_6bit.hdr",
    "vendor/Merlin_navigation4x2_ROI.zip/002_4x2_6bit_roi128.hdr",
]

#: Beyond this many cells only a corner is read.
SMALL = 30_000_000


@pytest.fixture(scope="module")
def unpacked(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    for archive in data_dir.rglob("*.zip"):
        with zipfile.ZipFile(archive) as content:
            content.extractall(folder / archive.relative_to(data_dir))
    return folder


def place(key: str, data_dir: Path, unpacked: Path) -> Path:
    return (unpacked if ".zip/" in key else data_dir) / key


def reference(path: Path, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """The first array of the file, read eagerly, that has these lengths, its energy axis put last."""
    suffix = path.suffix.lower()
    plugin = {
        ".bcf": "bruker",
        ".spx": "bruker",
        ".dm3": "digitalmicrograph",
        ".dm4": "digitalmicrograph",
        ".hspy": "hspy",
        ".ser": "tia",
        ".emi": "tia",
        ".blo": "blockfile",
        ".mib": "quantumdetector",
        ".mrc": "mrc",
        ".tvips": "tvips",
        ".elid": "phenom",
        ".emd": "emd",
        ".spc": "edax",
    }.get(suffix)
    if plugin is None:
        return None
    for found in importlib.import_module(f"rsciio.{plugin}").file_reader(str(path), lazy=False):
        data = np.asarray(found["data"])
        if data.shape == shape:
            return data
        if data.ndim == 3 and (data.shape[1], data.shape[2], data.shape[0]) == shape:
            return np.moveaxis(data, 0, -1)
    return None


def corner(cube: xr.DataArray, n: int = 3) -> xr.DataArray:
    return cube.isel({dim: slice(0, n) for dim in cube.em.nav_dims})


def test_no_file_is_forgotten(data_dir: Path, unpacked: Path) -> None:
    found = {p.relative_to(data_dir).as_posix() for p in data_dir.rglob("*") if p.is_file()}
    found |= {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file()}
    assert found == set(FILES) | set(REFUSED)


@pytest.mark.parametrize("key", FILES)
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::UserWarning", "ignore::RuntimeWarning"
)
def test_file_loads(key: str, data_dir: Path, unpacked: Path) -> None:
    path, expected = place(key, data_dir, unpacked), FILES[key]
    cube = em.open(path, expected.name)
    assert dict(cube.sizes) == expected.sizes
    assert list(cube.sizes) == list(expected.sizes)
    assert cube.attrs["sig_dims"] == list(expected.sizes)[cube.ndim - expected.n_sig :]
    assert cube.dtype == np.dtype(expected.dtype)
    assert cube.dtype.isnative
    assert " ".join(cube[d].attrs.get("units", "-") for d in cube.dims) == expected.units
    assert tuple(str(c) for c in cube.coords if c not in cube.dims) == expected.images
    metadata = em.cube.get_metadata(cube)
    assert metadata.modality == expected.modality
    assert " ".join(metadata.elements) == expected.elements
    assert metadata.beam_energy_keV == expected.beam
    assert metadata.source.file == path.name
    json.dumps(cube.attrs, allow_nan=False)
    for dim in cube.em.sig_dims:
        assert (np.diff(cube[dim].values) > 0).all()
    if cube.em.nav_dims and cube.em.sig_dims:
        assert cube.chunks is not None
        assert all(len(c) == 1 for c in cube.chunks[cube.ndim - expected.n_sig :])
    values = cube.values if cube.size <= SMALL else corner(cube).values
    assert values.dtype == cube.dtype
    eager = reference(path, cube.shape) if cube.size <= SMALL else None
    if eager is not None:
        assert np.array_equal(values, eager, equal_nan=eager.dtype.kind == "f")


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_no_data_is_refused(key: str, data_dir: Path, unpacked: Path) -> None:
    path = place(key, data_dir, unpacked)
    with pytest.raises(ReadError, match=r"unknown kind of file|is an archive of \d+ files"):
        em.open(path)


def test_energy_axis_exactly(data_dir: Path) -> None:
    folder = data_dir / "eels"
    dm3 = em.open(folder / "DMReader_SpectrumImage_SI-EELS.dm3")
    assert (dm3.energy.values == 350.0 + 0.5 * np.arange(1024)).all()
    sio2 = em.open(data_dir / "eds_tem_sio2" / "SiO2 EDS Spectrum Image.hspy")
    assert (sio2.energy.values == 0.009999999776482582 * np.arange(2048)).all()
    assert sio2.x.values[1] == pytest.approx(8.552446030080318, rel=1e-12)


def test_bruker_width_has_its_own_scale(data_dir: Path) -> None:
    cube = em.open(data_dir / "vendor" / "bcf_v2_50x50px.bcf")
    assert float(cube.y[1]) == pytest.approx(11.80808099)
    assert float(cube.x[1]) == pytest.approx(12.73058731)


def test_bruker_lines_one_by_one(data_dir: Path) -> None:
    whole = em.open(data_dir / "vendor" / "test_TEM.bcf").values
    source = BcfArray(data_dir / "vendor" / "test_TEM.bcf", 0, whole.shape, whole.dtype)
    assert (source[10:11, 5:9, 100:200] == whole[10:11, 5:9, 100:200]).all()
    assert (source[63:64] == whole[63:64]).all()
    assert (source[0:64:7, ::2] == whole[0:64:7, ::2]).all()


def test_bruker_counts_never_wrap_round(data_dir: Path) -> None:
    path = data_dir / "vendor" / "30x30_instructively_packed_16bit_compressed.bcf"
    values = em.open(path).values
    assert values.max() > 255
    narrow = BcfArray(path, 0, values.shape, np.dtype("u1"))
    with pytest.raises(
        ReadError, match=r"counts in a channel, expected at most 255.*dtype='uint16'"
    ):
        narrow[0:30]
    assert (em.open(path, dtype="u4").values == values).all()


def test_tilt_series(data_dir: Path) -> None:
    files = [data_dir / "eds_tilt_IDP_L2083" / f"{a}.bcf" for a in (30, -30, 0, 15, -15)]
    cube = em.open(files, dim="tilt")
    assert cube.dims == ("tilt", "y", "x", "energy")
    assert cube.tilt.values.tolist() == [-30, -15, 0, 15, 30]
    assert cube.tilt.attrs["units"] == "deg"
    assert cube.dtype == np.uint8
    assert cube.HAADF.dims == ("tilt", "y", "x")
    one = em.open(data_dir / "eds_tilt_IDP_L2083" / "15.bcf")
    assert (cube.sel(tilt=15).isel(y=slice(0, 8)).values == one.isel(y=slice(0, 8)).values).all()
    assert "file names" in cube.attrs["metadata"]["extra"]["notes"][0]


def test_image_stack_keeps_its_own_angles(data_dir: Path) -> None:
    # The .rawtlt file beside it holds 77 angles for 91 images.
    cube = em.open(data_dir / "tilt_haadf" / "HAADF.dm3")
    assert cube.tilt.values.tolist() == list(range(-90, 92, 2))
    assert "77 angles for 91 images" in cube.attrs["metadata"]["extra"]["notes"][0]


def test_fpd_by_path(data_dir: Path) -> None:
    import h5py

    path = data_dir / "stem4d" / "FPD_HDF5.hdf5"
    cube = em.open(path, name="/fpd_expt/fpd_data/data")
    with h5py.File(path) as file:
        raw = file["/fpd_expt/fpd_data/data"][3, :2]
    assert raw.dtype == np.dtype(">u2")
    assert (cube.isel(y=3, x=slice(0, 2)).values == raw).all()
    assert em.open(path, name="/fpd_expt/DAC/data").shape == (16, 16, 27)
    with pytest.raises(ReadError, match="no dataset"):
        em.open(path, name="/fpd_expt/nothing")


def test_samson_pixels_fit_their_abundances(data_dir: Path) -> None:
    path = data_dir / "unmix_gt" / "Samson.mat"
    cube, maps = em.open(path).values, em.open(path, "S_GT").values.reshape(-1, 3)

    def misfit(pixels: NDArray[Any]) -> float:
        spectra = np.linalg.lstsq(maps, pixels, rcond=None)[0]
        return float(((pixels - maps @ spectra) ** 2).sum() / (pixels**2).sum())

    assert misfit(cube.reshape(-1, 156)) < 0.1
    assert misfit(cube.transpose(1, 0, 2).reshape(-1, 156)) > 0.25
    assert em.open(path, "GT").dims == ("component", "band")


def test_velox_signals_by_name(data_dir: Path, unpacked: Path) -> None:
    path = unpacked / "vendor" / "velox_EELS_EDS.zip" / "example_velox_EELS_EDS.emd"
    with pytest.raises(AmbiguousSignalError, match="4 signals that could be the cube") as caught:
        em.open(path)
    assert caught.value.names[:4] == ["EELS #1", "EELS #2", "EELS #3", "EDS"]
    eds = em.open(path, name="EDS")
    assert dict(eds.sizes) == {"y": 128, "x": 128, "energy": 4096}
    assert "a" in eds.coords
    assert float(em.open(path, "EELS #2").energy[0]) == pytest.approx(480.0)
    assert {s.name for s in signals(path)} == set(caught.value.names)


@pytest.mark.parametrize(
    "key",
    [
        "vendor/test_TEM.bcf",
        "eds_tem_fept/core_shell.hspy",
        "vendor/EELS_SI.dm4",
        "vendor/test1.blo",
    ],
)
def test_lazy_cubes_go_to_other_processes(key: str, data_dir: Path) -> None:
    cube = em.open(data_dir / key)
    again = pickle.loads(pickle.dumps(cube))
    assert np.array_equal(corner(again).values, corner(cube).values)


def test_brackets_in_names(data_dir: Path) -> None:
    path = data_dir / "eds_standards_K412" / "III-E K412[1][4].msa"
    (signal,) = read_rosetta(path)  # RosettaSciIO's own reader agrees
    assert (em.open(path).values == np.asarray(signal.cube.values)).all()


def test_jeol_events_stay_small(data_dir: Path, tmp_path: Path) -> None:
    """1.07 GB dense: the whole ingest must stay under 1.5 GB, and does under 1."""
    code = (
        "import sys, emcube as em; from benchmarks.clock import peak_bytes\n"
        "place = em.ingest(sys.argv[1], sys.argv[2])\n"
        "print(peak_bytes(), int(em.open(place).sum()))"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            data_dir / "vendor" / "View000_0000006.pts",
            tmp_path / "pts.zarr",
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    peak, total = map(int, done.stdout.split())
    assert total == 308_261
    assert peak < 1e9


def attempt(path: Path, name: str | None) -> tuple[EmcubeError | None, NDArray[Any] | None]:
    try:
        return None, corner(em.open(path, name), 64).values
    except EmcubeError as error:
        return error, None


#: One small file of each format.
CUT = [
    "vendor/30x30_instructively_packed_16bit_compressed.bcf",
    "vendor/over16bit.bcf",
    "vendor/bruker_nano.spx",
    "vendor/EELS_SI.dm4",
    "vendor/test-EDS_spectrum.dm3",
    "vendor/Elid2Version4.elid",
    "vendor/HAADFscan.mrc",
    "vendor/test1.blo",
    "vendor/test_tvips_2345_000.tvips",
    "vendor/signal1d_10x10-ZipStore.zspy",
    "vendor/example2_v3.1.hspy",
    "vendor/16x16-spectrum_image-5x5x1024_1.ser",
    "vendor/View000_0000006.pts",
    "eels/EELS_signal.hdf5",
    "eds_standards_K412/Al2O3 std.msa",
    "stem4d/FPD_HDF5.hdf5",
    "unmix_gt/Samson.mat",
    "vendor/Merlin_navigation4x2_ROI.zip/001_4x2_6bit.mib",
    "vendor/velox_emd_version11.zip/Test SI 16x16 215 kx.emd",
    "eds_sem_edax/EDAX_EDS_files.zip/SEM_EDS_map.spc",
]


@pytest.mark.parametrize("key", CUT)
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::UserWarning", "ignore::RuntimeWarning"
)
def test_file_cut_short(key: str, data_dir: Path, unpacked: Path, tmp_path: Path) -> None:
    """A part of a file is one clear error, or (where only padding is gone) the same values; never others."""
    path = place(key, data_dir, unpacked)
    name = FILES[key].name
    content = path.read_bytes()
    whole: NDArray[Any] | None = None
    side = path.with_suffix(".hdr")
    for part in (0.0001, 0.05, 0.3, 0.6, 0.9, 0.99):
        folder = tmp_path / str(part)
        folder.mkdir()
        (folder / path.name).write_bytes(content[: max(1, int(part * len(content)))])
        if side.is_file():
            (folder / side.name).write_bytes(side.read_bytes())
        error, got = attempt(folder / path.name, name)
        if error is not None:
            assert path.name in str(error)
            assert error.hint
            continue
        assert got is not None
        whole = corner(em.open(path, name), 64).values if whole is None else whole
        assert np.array_equal(got, whole, equal_nan=got.dtype.kind == "f")
