"""Composites, overlays, montages, residuals, compositions; and what strangers write into names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from emcube import plot
from emcube.errors import InputError
from emcube.plot import style
from tests.plot.test_images import axis, labels, lines, loadings, quality, spectra, tilted
from tests.plot.test_plot import nothing_is_clipped, texts, written


def images(figure: Figure) -> list:
    return [axes for axes in figure.axes if axes.images and axes.get_visible()]


# --- composites ---------------------------------------------------------------------------------


def test_colours_of_a_composite_add_up(tmp_path: Path) -> None:
    data = loadings().isel(component=[0, 1], y=slice(4), x=slice(6)) * 0.0
    data[0, 0, 0], data[0, 1, 1], data[0, 2] = 10.0, 5.0, [10.0, 5.0]
    figure = plot.composite(data, names=["a", "b"], colors=["red", "lime"])
    (axes,) = images(figure)
    pixels = axes.images[0].get_array()
    np.testing.assert_allclose(pixels[0, 0], (1, 0, 0))
    np.testing.assert_allclose(pixels[0, 1], (0, 1, 0))
    np.testing.assert_allclose(pixels[0, 2], (1, 1, 0))
    np.testing.assert_allclose(pixels[3, 5], 0)
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == ["a\n10 counts", "b\n5 counts"]
    written(figure, tmp_path)


def test_a_composite_shares_a_scale_and_keeps_its_hue() -> None:
    data = loadings().isel(component=[0, 1], y=slice(4), x=slice(6)) * 0.0
    data[0, 0, 0], data[0, 2, 0], data[0, 1, 1], data[0, 3, 1] = 10.0, 10.0, 5.0, 5.0
    shared = images(plot.composite(data, colors=["red", "lime"], share_scale=True))[0]
    np.testing.assert_allclose(shared.images[0].get_array()[0, 1], (0, 0.5, 0))
    data[0, 0] = [10.0, 5.0]
    bright = (
        images(plot.composite(data, colors=["#ff8000", "#ff0080"]))[0].images[0].get_array()[0, 0]
    )
    np.testing.assert_allclose(bright, np.array([2.0, 0x80 / 255, 0x80 / 255]) / 2.0)


def test_pixels_that_were_not_used_are_grey_in_a_composite() -> None:
    data = loadings()
    data[:3] = np.nan
    pixels = images(plot.composite(data))[0].images[0].get_array()
    np.testing.assert_allclose(pixels[:3], float(style.MISSING))


def test_composites_of_all_dims(tmp_path: Path) -> None:
    series = plot.composite(tilted(7), max_frames=6)
    assert len(images(series)) == 6
    assert images(series)[0].get_title() == "tilt = -30°"
    written(series, tmp_path)
    scan = plot.composite(lines().isel(y=7), by="line")
    assert scan.axes[0].get_xlabel() == "x (nm)"
    assert scan.legends[0].get_texts()[0].get_text().startswith("Ni Kα")
    written(scan, tmp_path)
    clock = xr.DataArray([0.0, 5.0], dims="time", name="time", attrs={"units": "s"})
    four = xr.concat([tilted(2)] * 2, dim=clock)
    assert images(plot.composite(four))[0].get_title() == "time = 0 s\ntilt = -30°"


def test_composites_refuse() -> None:
    many = xr.concat([loadings()] * 3, dim="component")
    with pytest.raises(InputError, match="9 maps, expected at most 8"):
        plot.composite(many)
    with pytest.raises(InputError, match="colors are names"):
        plot.composite(loadings(), colors=["red", "reddish", "blue"])
    with pytest.raises(InputError, match="one to four"):
        plot.composite(loadings().isel(y=0, x=0))
    with pytest.raises(InputError, match="by="):
        plot.composite(loadings(), by="k")


# --- overlays -----------------------------------------------------------------------------------


def test_an_overlay_lies_over_a_finer_image_in_another_unit(tmp_path: Path) -> None:
    fine = xr.DataArray(
        np.random.default_rng(0).random((48, 72)),
        dims=("v", "u"),
        coords={
            "v": ("v", *axis(48, 0.0025, "um")),
            "u": ("u", *axis(72, 0.0025, "um")),
        },
    )
    figure = plot.overlay(loadings().isel(component=[0, 1]), fine, names=["a", "b"])
    grey, colored = images(figure)[0].images
    assert grey.cmap.name == "gray"
    np.testing.assert_allclose(grey.get_extent(), [-1.25, 178.75, 118.75, -1.25], atol=1e-9)
    assert colored.get_extent() == [-2.5, 177.5, 117.5, -2.5]
    rgba = colored.get_array()
    assert rgba[20, 2, 3] < 0.01  # nothing there: the image is seen
    assert rgba[7, 7, 3] == pytest.approx(0.75, abs=0.02)
    np.testing.assert_allclose(rgba[7, 7, :3], to_rgb(style.LIGHTS[0]), atol=0.02)
    written(figure, tmp_path)


def test_overlays_of_one_map_and_of_a_series(tmp_path: Path) -> None:
    one = loadings().isel(component=0, drop=True).rename("Ni")
    figure = plot.overlay(one, one)
    assert [t.get_text().split("\n")[0] for t in figure.legends[0].get_texts()] == ["Ni"]
    haadf = tilted(7).sum("component")
    series = plot.overlay(tilted(7), haadf, max_frames=3)
    assert len(images(series)) == 3
    np.testing.assert_array_equal(images(series)[2].images[0].get_array(), haadf[-1])
    written(series, tmp_path)
    assert len(images(plot.overlay(tilted(7), haadf[0], max_frames=2))) == 2


def test_overlays_refuse() -> None:
    data, image = loadings(), loadings().sum("component")
    with pytest.raises(InputError, match="a line scan"):
        plot.overlay(data.isel(y=0), image)
    with pytest.raises(InputError, match="opacity 2"):
        plot.overlay(data, image, opacity=2)
    with pytest.raises(InputError, match="two after"):
        plot.overlay(tilted(3), tilted(4).sum("component"))
    other = image.assign_coords(x=("x", *axis(36, 1.0, "keV")))
    with pytest.raises(InputError, match="'keV'"):
        plot.overlay(data, other)


# --- montages -----------------------------------------------------------------------------------


def test_a_montage_shows_all_tilts_on_one_scale(tmp_path: Path) -> None:
    figure = plot.montage(tilted(11).isel(component=0), title="Ni")
    drawn = images(figure)
    assert len(drawn) == 11
    assert len({axes.images[0].norm.vmax for axes in drawn[:11]}) == 1
    said = texts(figure)
    assert "-30°" in said
    assert "tilt (°)" in said
    written(figure, tmp_path)
    assert len(images(plot.montage(tilted(11).isel(component=0), max_frames=3, columns=2))) == 3


def test_montages_refuse() -> None:
    with pytest.raises(InputError, match="select one component"):
        plot.montage(loadings().isel(component=0))
    with pytest.raises(InputError, match="columns 0"):
        plot.montage(tilted(3).isel(component=0), columns=0)


# --- what is left -------------------------------------------------------------------------------


def test_residuals_part_their_colours_at_one(tmp_path: Path) -> None:
    figure = plot.residuals(quality(), elements=["Fe"])
    chi = figure.axes[0].images[0]
    assert chi.norm(1.0) == pytest.approx(0.5)
    assert chi.norm(0.0) == 0.0
    curve = figure.axes[-1] if figure.axes[-1].lines else figure.axes[2]
    assert "Fe Kα" in texts(figure)
    assert any(line.get_ydata()[0] == 1.0 for line in curve.lines)
    written(figure, tmp_path)


def test_residuals_of_all_dims(tmp_path: Path) -> None:
    maps = quality()
    written(plot.residuals(maps.isel(y=0)), tmp_path)
    series = xr.concat([maps] * 5, dim=tilted(5)["tilt"], data_vars=["chi_square", "residual"])
    figure = plot.residuals(series, max_frames=3)
    assert sum(axes.get_title() == "tilt = 0°" for axes in images(figure)) == 1
    written(figure, tmp_path)
    pattern = maps[["chi_square"]].assign(
        chi_square_spectrum=(("ky", "kx"), np.ones((4, 5)), {"units": "1"})
    )
    written(plot.residuals(pattern), tmp_path)
    written(plot.residuals(maps[["residual"]]), tmp_path)
    with pytest.raises(InputError, match="expected 'chi_square'"):
        plot.residuals(maps[["chi_square_spectrum"]])


def test_raw_and_denoised_series_share_a_scale_by_line(tmp_path: Path) -> None:
    named = tilted(4).rename(component="line").assign_coords(line=["Ni_Ka", "Cr_Ka", "Si_Ka"])
    figure = plot.raw_and_denoised(named + 1.0, named, by="line", residual=True, max_frames=2)
    rows = [axes.get_ylabel() for axes in images(figure) if axes.get_ylabel()]
    assert rows[:3] == ["Ni Kα\nraw", "Ni Kα\ndenoised", "Ni Kα\nraw − denoised"]
    first, second = images(figure)[0], images(figure)[2]
    assert first.images[0].norm.vmax == second.images[0].norm.vmax
    written(figure, tmp_path)
    with pytest.raises(InputError, match="expected two"):
        plot.raw_and_denoised(named, named, by="line", names=["raw"])


def test_compositions(tmp_path: Path) -> None:
    data = xr.DataArray([[9.0, 1.0], [-2.0, 5.0]], dims=("cluster", "component"))
    figure = plot.compositions(data, names=["matrix", "layer"])
    (axes,) = figure.axes
    widths = [[bar.get_width() for bar in group] for group in axes.containers]
    assert widths == [[9.0, 0.0], [1.0, 5.0]]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["matrix", "layer"]
    written(figure, tmp_path)
    with pytest.raises(InputError, match="'cluster'"):
        plot.compositions(data.rename(cluster="k"))


def test_centers_of_clusters_are_spectra() -> None:
    figure = plot.components(spectra().rename(component="cluster"), by="cluster")
    assert figure.axes[1].get_title(loc="right") == "cluster 1"


def test_loadings_and_line_maps_are_cubes_that_are_drawn_as_maps() -> None:
    figure = plot.cube_overview(loadings().assign_attrs(sig_dims=["component"]))
    assert [a.get_title() for a in images(figure)][:3] == [f"component {i}" for i in range(3)]
    figure = plot.cube_overview(lines().assign_attrs(sig_dims=["line"]))
    assert images(figure)[0].get_title() == "Ni Kα"


def test_a_noise_floor_is_a_line_of_its_own() -> None:
    curve = xr.DataArray([9.0, 1.1, 0.9], dims="component")
    (axes,) = plot.scree(curve, noise_floor=1.0).axes
    (line,) = [ln for ln in axes.lines if "floor" in str(ln.get_label())]
    assert list(line.get_ydata()) == [1.0, 1.0]


# --- what strangers write -----------------------------------------------------------------------

HOSTILE = (
    "<script>alert(1)</script>",
    "$\\frac{ costs $5",
    "x" * 10_000,
    "two\nlines\ttab\x00",
    "Ωμέγα ß ñ",
)


@pytest.mark.parametrize("text", HOSTILE, ids=["html", "mathtext", "long", "control", "greek"])
def test_strangers_texts_are_written_as_they_are(text: str) -> None:
    data = loadings().assign_coords(component=[text, "b", "c"])
    data = data.assign_attrs(long_name=text, units=text)
    spectrum = spectra().assign_coords(component=[text, "b", "c"]).assign_attrs(long_name=text)
    spectrum["energy"].attrs["long_name"] = text
    named = labels().assign_attrs(long_name=text)
    for figure in (
        plot.maps(data, title=text),
        plot.composite(data, title=text),
        plot.components(spectrum, title=text),
        plot.label_map(named, names=[text, "b", "c"], title=text),
    ):
        figure.set_dpi(50)
        said = " ".join(texts(figure))
        assert max(map(len, texts(figure))) < 250
        start = style.plain(text).replace(r"\$", "$")[:8]
        assert start in said.replace(r"\$", "$")


def test_long_titles_are_broken_into_lines() -> None:
    figure = plot.components(spectra(), title="A title " * 20)
    assert figure.get_suptitle().count("\n") == 2
    figure.set_dpi(60)
    nothing_is_clipped(figure)
