"""TIFF and CSV as other programs read them."""

from __future__ import annotations

import csv
import json

import dask.array as da
import numpy as np
import pytest
import tifffile
import xarray as xr

from emcube.errors import InputError, StoreError
from emcube.results.files import spectra_writer, write_csv, write_tiff


def maps(n_tilts: int = 0, unit: str = "nm", step: float = 2.5) -> xr.DataArray:
    values = np.random.default_rng(0).random((max(n_tilts, 1), 6, 8, 3)) * 100
    data = xr.DataArray(
        values,
        dims=("tilt", "y", "x", "component"),
        coords={
            "tilt": ("tilt", np.linspace(-30, 30, max(n_tilts, 1)), {"units": "deg"}),
            "y": ("y", 10.0 + np.arange(6) * step, {"units": unit}),
            "x": ("x", np.arange(8) * step, {"units": unit}),
            "component": [0, 1, 2],
        },
        name="loadings",
        attrs={"units": "counts", "long_name": "loadings"},
    )
    return data if n_tilts else data.isel(tilt=0, drop=True)


def test_imagej_gets_channels_with_size_unit_origin_and_names(tmp_path):
    data = maps()
    files, lost = write_tiff(data, tmp_path / "a.tif", notes={"run_id": "sha256:12"})
    assert files == [tmp_path / "a.tif"]
    assert lost == ["digits beyond float32's seven"]
    with tifffile.TiffFile(files[0]) as file:
        assert file.is_imagej
        said, series = file.imagej_metadata, file.series[0]
        assert series.axes == "CYX"
        expected = data.transpose("component", "y", "x").values.astype("f4")
        np.testing.assert_array_equal(series.asarray(), expected)
        x, y = (file.pages[0].tags[f"{d}Resolution"].value for d in "XY")
    assert x[0] / x[1] == y[0] / y[1] == pytest.approx(1 / 2.5)
    assert said["unit"] == "nm"
    assert (said["xorigin"], said["yorigin"]) == (0.0, -4.0)
    assert said["Labels"] == ["component 0", "component 1", "component 2"]
    info = json.loads(said["Info"])
    assert info["run_id"] == "sha256:12"
    assert info["units"] == "counts"
    assert info["axes"]["y"] == {"units": "nm", "values": data["y"].values.tolist()}


def test_a_tilt_series_is_a_hyperstack(tmp_path):
    data = maps(5)
    lazy = data.copy(data=da.from_array(data.values, chunks=(2, 6, 4, 3)))
    _, lost = write_tiff(lazy, tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.series[0].axes == "ZCYX"
        expected = data.transpose("tilt", "component", "y", "x").values.astype("f4")
        np.testing.assert_array_equal(file.series[0].asarray(), expected)
        assert file.imagej_metadata["Labels"][4] == "tilt = -15 deg, component 1"
        assert "spacing" not in file.imagej_metadata
    assert any("tilt" in line for line in lost)
    deep = data.rename(tilt="z").assign_coords(z=("z", np.arange(5) * 0.1, {"units": "um"}))
    write_tiff(deep.isel(component=0), tmp_path / "z.tif")
    with tifffile.TiffFile(tmp_path / "z.tif") as file:
        assert file.series[0].axes == "ZYX"
        assert file.imagej_metadata["spacing"] == pytest.approx(100.0)  # nm
    write_tiff(deep.expand_dims(time=[0.0, 1.0]), tmp_path / "t.tif")
    with tifffile.TiffFile(tmp_path / "t.tif") as file:
        assert file.series[0].axes == "TZCYX"


@pytest.mark.parametrize(("unit", "read"), [("nm", "nm"), ("um", "µm")])
def test_hyperspys_reader_gets_the_pixel_size(tmp_path, unit, read):
    from rsciio.tiff import file_reader

    oblong = maps(unit=unit)
    write_tiff(
        oblong.assign_coords(y=("y", np.arange(6) * 4.0, {"units": unit})), tmp_path / "a.tif"
    )
    (signal,) = file_reader(str(tmp_path / "a.tif"))
    axes = {a["name"]: a for a in signal["axes"]}
    for name, step in (("width", 2.5), ("height", 4.0)):
        assert axes[name]["scale"] == pytest.approx(step)
        assert axes[name]["units"] == read
    assert signal["data"].shape == (3, 6, 8)
    assert signal["metadata"]["Signal"]["quantity"] == "counts"


def test_labels_come_in_the_colours_of_the_figures(tmp_path):
    from matplotlib.colors import to_rgb

    from emcube.plot import style

    labels = maps().isel(component=0, drop=True).astype("i4") * 0 + np.arange(8) % 4 - 1
    labels = labels.astype("i4").rename("labels")
    write_tiff(labels, tmp_path / "labels.tif")
    with tifffile.TiffFile(tmp_path / "labels.tif") as file:
        np.testing.assert_array_equal(file.asarray(), labels.values)
        said = file.imagej_metadata
    table = said["LUTs"][0] if isinstance(said["LUTs"], list) else said["LUTs"]
    low, high = float(said["min"]), float(said["max"])
    for value in (-1, 0, 2):
        color = np.asarray(table)[:, round((value - low) / (high - low) * 255)] / 255
        np.testing.assert_allclose(
            color, (0, 0, 0) if value < 0 else to_rgb(style.color(value)), atol=0.01
        )


def test_dtypes(tmp_path):
    one = maps().isel(component=0, drop=True)
    for dtype, written in (("u1", "u1"), ("u2", "u2"), ("bool", "u1"), (">u2", "u2"), ("i8", "f4")):
        write_tiff(one.astype(dtype), tmp_path / "a.tif", overwrite=True)
        assert tifffile.imread(tmp_path / "a.tif").dtype == np.dtype(written)
    with pytest.raises(InputError, match="real numbers"):
        write_tiff(one.astype("c8"), tmp_path / "c.tif")


def test_pixels_without_a_common_size_are_said_to_be_lost(tmp_path):
    uneven = maps().assign_coords(x=("x", np.arange(8.0) ** 2, {"units": "nm"}))
    _, lost = write_tiff(uneven, tmp_path / "a.tif")
    assert any("pixel size" in line for line in lost)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.imagej_metadata["unit"] == "pixel"
    bare = xr.DataArray(np.ones((3, 4)), dims=("y", "x"))
    assert write_tiff(bare, tmp_path / "b.tif")[1] == ["digits beyond float32's seven"]


def test_nothing_half_written_and_nothing_replaced_unasked(tmp_path):
    path = tmp_path / "a.tif"
    path.write_text("mine")
    with pytest.raises(StoreError, match="it exists"):
        write_tiff(maps(), path)
    assert path.read_text() == "mine"

    def fail(block):
        raise OSError(28, "No space left on device")

    broken = maps().copy(
        data=da.ones((6, 8, 3), chunks=3).map_blocks(fail, dtype=float, meta=np.ones((0, 0, 0)))
    )
    with pytest.raises(StoreError, match="No space left"):
        write_tiff(broken, path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]
    assert path.read_text() == "mine"


def test_what_is_no_image_or_too_large_is_refused(tmp_path):
    with pytest.raises(InputError, match="write_csv"):
        write_tiff(maps().isel(y=0), tmp_path / "a.tif")
    huge = xr.DataArray(da.zeros((40_000, 40_000), dtype="f4"), dims=("y", "x"))
    with pytest.raises(InputError, match="at most 4 GB"):
        write_tiff(huge, tmp_path / "a.tif")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------ tables


def spectra() -> xr.DataArray:
    energy = np.array([0.1, 0.2, 0.30000000000000004])
    return xr.DataArray(
        np.array([[1 / 3, 0.0, 1e-70], [np.nan, 2.0, 3.0]]),
        dims=("component", "energy"),
        coords={"component": [0, 1], "energy": ("energy", energy, {"units": "keV"})},
        name="components",
        attrs={"units": "1 per channel"},
    )


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_table_keeps_every_digit(tmp_path):
    files, _ = write_csv(spectra(), tmp_path / "new" / "a.csv")
    header, *rows = read(files[0])
    assert header == ["energy (keV)", "component 0 (1 per channel)", "component 1 (1 per channel)"]
    assert [float(row[0]) for row in rows] == spectra()["energy"].values.tolist()
    assert float(rows[0][1]) == 1 / 3
    assert rows[0][2] == ""  # missing
    assert float(rows[2][1]) == 1e-70


def test_single_spectra_and_line_scans(tmp_path):
    write_csv(spectra()[1].rename("sum_spectrum"), tmp_path / "a.csv")
    assert read(tmp_path / "a.csv")[0] == ["energy (keV)", "sum_spectrum (1 per channel)"]
    scan = maps().isel(y=0, drop=True)
    write_csv(scan, tmp_path / "b.csv")
    table = read(tmp_path / "b.csv")
    assert table[0][0] == "x (nm)"
    assert len(table) == 9
    assert float(table[3][2]) == float(scan[2, 1])


def test_names_are_no_formulas(tmp_path):
    named = spectra().assign_coords(component=["=1+1", '@cmd, "x"\n'])
    write_csv(named.assign_attrs(units="1"), tmp_path / "a.csv")
    assert read(tmp_path / "a.csv")[0][1:] == ["'=1+1", '\'@cmd, "x"\n']


def test_tables_refuse(tmp_path):
    with pytest.raises(InputError, match="write_tiff"):
        write_csv(maps(), tmp_path / "a.csv")
    write_csv(spectra(), tmp_path / "a.csv")
    with pytest.raises(StoreError, match="it exists"):
        write_csv(spectra(), tmp_path / "a.csv")


def test_other_suffixes_are_written_by_who_provides_it():
    from emcube.interop.msa import write_spectra

    assert spectra_writer(".msa") is write_spectra
    assert spectra_writer(".csv") is write_csv
    with pytest.raises(InputError, match=r"'\.xls'"):
        spectra_writer(".xls")


def test_export_knows_tables_and_images(tmp_path):
    import emcube as em

    assert em.export(maps(), tmp_path / "a.tif").files == (tmp_path / "a.tif",)
    cube = spectra().assign_attrs(sig_dims=["energy"])
    assert em.export(cube, tmp_path / "a.csv").files == (tmp_path / "a.csv",)
    with pytest.raises(InputError, match="write_csv"):
        em.export(cube, tmp_path / "b.tif")
