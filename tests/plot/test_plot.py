"""Figures say what they should: artists and labels are checked, not pixels."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axis import Tick, XTick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from emcube import plot
from emcube.errors import InputError
from emcube.plot import style
from emcube.xray import fwhm, line_energy

ENERGY = np.arange(0.1, 10.0, 0.02)


def line(*names: str) -> np.ndarray:
    y = 0.01 * np.exp(-ENERGY / 3)
    for name in names:
        center = line_energy(name)
        weight = 0.15 if name.endswith("Kb") else 1.0
        y = y + weight * np.exp(-0.5 * ((ENERGY - center) / (fwhm(center) / 2.3548)) ** 2)
    return y / y.sum()


def axis(values: object, dim: str, units: str) -> tuple[str, np.ndarray, dict[str, str]]:
    return (dim, np.asarray(values, dtype=float), {"units": units})


@pytest.fixture
def spectra() -> xr.DataArray:
    return xr.DataArray(
        np.stack([line("Ni_Ka", "Ni_La"), line("Cr_Ka", "Cr_Kb"), line("Si_Ka")]),
        dims=("component", "energy"),
        coords={"component": [0, 1, 2], "energy": axis(ENERGY, "energy", "keV")},
        attrs={"units": "1 per channel"},
    )


@pytest.fixture
def loadings() -> xr.DataArray:
    rng = np.random.default_rng(0)
    return xr.DataArray(
        rng.poisson(5.0, (12, 16, 3)).astype(float),
        dims=("y", "x", "component"),
        coords={
            "y": axis(np.arange(12) * 4, "y", "nm"),
            "x": axis(np.arange(16) * 4, "x", "nm"),
            "component": [0, 1, 2],
        },
        attrs={"units": "counts"},
    )


def tilts(data: xr.DataArray, n: int = 7) -> xr.DataArray:
    angles = xr.DataArray(np.linspace(-30, 30, n), dims="tilt", name="tilt", attrs={"units": "deg"})
    return xr.concat([data] * n, dim=angles)


def shown(figure: Figure) -> list:
    return [axes for axes in figure.axes if axes.get_visible()]


def texts(figure: Figure) -> list[str]:
    """All text of a figure, drawn once so that the layout is the real one."""
    FigureCanvasAgg(figure).draw()
    return [t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")) if t.get_text()]


def written(figure: Figure, folder: Path) -> None:
    path = folder / "figure.png"
    figure.set_dpi(80)  # the layout is the same in inches, and drawing is faster
    figure.savefig(path)
    assert path.stat().st_size > 1000
    assert path.read_bytes()[:4] == b"\x89PNG"
    nothing_is_clipped(figure)


def within(tick: Tick) -> bool:
    axis = tick.axes.xaxis if isinstance(tick, XTick) else tick.axes.yaxis
    low, high = sorted(axis.get_view_interval())
    return low <= tick.get_loc() <= high


def nothing_is_clipped(figure: Figure) -> None:
    """No text stands over the edge of the figure."""
    canvas = FigureCanvasAgg(figure)  # a bare figure's own canvas draws nothing
    canvas.draw()
    width, height = canvas.get_width_height()
    # Tick labels beyond the limits exist, but are not drawn.
    undrawn = {
        label
        for tick in figure.findobj(Tick)
        for label in (tick.label1, tick.label2)
        if not within(tick)
    }
    for text in figure.findobj(lambda a: type(a).__name__ in ("Text", "Annotation")):
        if not text.get_visible() or not text.get_text().strip() or text in undrawn:
            continue
        if text.axes is not None and not text.axes.get_visible():
            continue
        box = text.get_window_extent()
        assert box.x0 > -2, text.get_text()
        assert box.y0 > -2, text.get_text()
        assert box.x1 < width + 2, text.get_text()
        assert box.y1 < height + 2, text.get_text()


# --- importing ----------------------------------------------------------------------------------


def test_importing_the_package_leaves_matplotlib_alone() -> None:
    code = (
        "import sys, emcube.plot; assert 'matplotlib' not in sys.modules; "
        "emcube.plot.scree; assert 'matplotlib' in sys.modules; "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_public_names() -> None:
    assert set(plot.__all__) <= set(dir(plot))
    for name in plot.__all__:
        assert callable(getattr(plot, name))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = plot.nonsense


def test_figures_need_no_pyplot_and_show_themselves() -> None:
    figure = plot.image(xr.DataArray(np.eye(5), dims=("y", "x")))
    assert figure._repr_png_()[:4] == b"\x89PNG"
    assert "matplotlib.pyplot" not in sys.modules or figure not in [
        sys.modules["matplotlib.pyplot"].figure(n)
        for n in sys.modules["matplotlib.pyplot"].get_fignums()
    ]


def test_notebooks_show_figures_in_one_size_whatever_pyplot_has_registered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from IPython.core.formatters import DisplayFormatter

    shown: list[dict[str, object]] = []
    monkeypatch.setattr("IPython.display.publish_display_data", shown.append)
    formatter = DisplayFormatter()
    formatter.formatters["image/png"].for_type(Figure, lambda figure: b"as pyplot has it")
    figure = plot.image(xr.DataArray(np.eye(4), dims=("y", "x")))
    assert formatter.format(figure) == ({}, {})
    assert [data["image/png"] for data in shown] == [figure._repr_png_()]


def test_threads_may_draw_at_once(loadings: xr.DataArray, tmp_path: Path) -> None:
    def draw(i: int) -> bytes:
        path = tmp_path / f"{i}.png"
        plot.maps(loadings).savefig(path, dpi=50)
        return path.read_bytes()

    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(draw, range(4)))
    assert len(set(pictures)) == 1


# --- scree --------------------------------------------------------------------------------------


def test_scree(tmp_path: Path) -> None:
    values = xr.DataArray(
        np.r_[1e5, 300.0, 80.0, np.linspace(1.2, 0.8, 57)],
        dims="component",
        name="explained_variance",
    )
    figure = plot.scree(values, threshold=1.3, n_components=3, trivial_first=True, title="t")
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "explained variance"
    legend = [t.get_text() for t in axes.get_legend().get_texts()]
    assert legend == [
        "components",
        "noise",
        "mean spectrum (trivial: no contrast)",
        "noise threshold",
        "number of components: 3",
    ]
    lines = {ln.get_label(): ln for ln in axes.lines}
    np.testing.assert_array_equal(lines["components"].get_xdata(), [1, 2])
    assert len(lines["noise"].get_xdata()) == 47  # 50 at most are shown
    assert lines["noise threshold"].get_ydata()[0] == 1.3
    assert 2 < lines["number of components: 3"].get_xdata()[0] < 3
    written(figure, tmp_path)


def test_scree_of_a_dataset_with_its_own_threshold() -> None:
    curve = xr.Dataset(
        {
            "singular_value": ("component", [9.0, 4.0, 0.5, 0.0]),
            "threshold": ("component", [1.0, 0.9, 0.8, 0.7]),
        }
    )
    (axes,) = plot.scree(curve, n_components=2).axes
    lines = {ln.get_label(): ln for ln in axes.lines}
    np.testing.assert_array_equal(lines["noise threshold"].get_ydata(), [1.0, 0.9, 0.8, 0.7])
    # Zero has no place on the axis, and is not moved to one.
    np.testing.assert_array_equal(lines["noise"].get_ydata(), [0.5])
    assert axes.get_ylabel() == "singular value"


def test_scree_says_the_number_where_there_is_no_room_for_a_line() -> None:
    values = xr.DataArray([3.0, 2.0], dims="component")
    for n in (0, 2, 5):
        (axes,) = plot.scree(values, n_components=n).axes
        assert f"number of components: {n}" in [t.get_text() for t in axes.get_legend().get_texts()]


def test_ticks_of_a_scree_of_less_than_a_decade() -> None:
    (axes,) = plot.scree(xr.DataArray([900.0, 700.0, 180.0], dims="component")).axes
    assert axes.get_yticks().tolist() == [200.0, 500.0, 1000.0]
    assert [axes.yaxis.get_major_formatter()(v) for v in (200.0, 1000.0)] == ["200", "1000"]


@pytest.mark.parametrize(
    "bad", [xr.DataArray(np.ones((2, 2))), xr.Dataset({"x": ("a", [1.0])}), xr.DataArray([])]
)
def test_scree_refuses_what_is_no_curve(bad: xr.DataArray | xr.Dataset) -> None:
    with pytest.raises(InputError):
        plot.scree(bad)


# --- components and spectra ---------------------------------------------------------------------


def test_components_are_named_by_their_lines(spectra: xr.DataArray, tmp_path: Path) -> None:
    figure = plot.components(spectra, elements=["Ni", "Cr", "Si", "Fe"])
    labels = [[t.get_text() for t in axes.texts] for axes in figure.axes]
    assert labels == [["Ni Lα", "Ni Kα"], ["Cr Kα", "Cr Kβ"], ["Si Kα"]]
    assert [axes.get_title(loc="right") for axes in figure.axes] == [
        "component 0",
        "component 1",
        "component 2",
    ]
    assert figure.axes[-1].get_xlabel() == "energy (keV)"
    assert figure.get_supylabel() == "1 per channel"
    written(figure, tmp_path)


def test_nothing_is_named_unasked(spectra: xr.DataArray) -> None:
    for figure in (
        plot.components(spectra),
        plot.components(spectra, elements=["Ni"], labels=None),
        plot.components(spectra.assign_coords(energy=ENERGY), elements=["Ni"]),  # no unit
    ):
        assert all(not axes.texts for axes in figure.axes)


@pytest.mark.parametrize(("n", "yscale"), [(1, "linear"), (3, "linear"), (3, "sqrt"), (2, "log")])
def test_line_labels_keep_apart_and_clear(spectra: xr.DataArray, yscale: str, n: int) -> None:
    crowded = line(
        "C_Ka", "N_Ka", "O_Ka", "Fe_La", "Ni_La", "Cu_La", "Na_Ka", "Al_Ka", "Si_Ka", "Ni_Ka"
    )
    data = xr.DataArray(
        np.tile(crowded, (n, 1)), dims=spectra.dims, coords={"energy": spectra["energy"]}
    )
    elements = ["C", "N", "O", "Fe", "Ni", "Cu", "Na", "Al", "Si"]
    figure = plot.components(data, elements=elements, yscale=yscale)
    figure.set_dpi(80)
    nothing_is_clipped(figure)
    for axes in shown(figure):
        boxes = [Text.get_window_extent(t) for t in axes.texts]  # without their lines
        assert len(boxes) >= 8
        for i, a in enumerate(boxes):
            for b in boxes[i + 1 :]:
                assert not (
                    a.x0 + 1 < b.x1 and b.x0 + 1 < a.x1 and a.y0 + 1 < b.y1 and b.y0 + 1 < a.y1
                )
        # No curve runs through a label.
        curve = axes.transData.transform(np.c_[ENERGY, np.maximum(crowded, axes.get_ylim()[0])])
        for box in boxes:
            under = (curve[:, 0] > box.x0 + 1) & (curve[:, 0] < box.x1 - 1)
            assert curve[under, 1].max() < box.y0 + 1


def test_components_of_both_signs_and_with_unused_channels(
    spectra: xr.DataArray, tmp_path: Path
) -> None:
    scores = spectra - spectra.mean("component")
    scores[:, :40] = np.nan
    figure = plot.components(scores, elements=["Ni"], yscale="log", names=["a", "b", "c"])
    for axes in figure.axes:
        assert axes.get_yscale() == "linear"
        assert axes.get_ylim()[0] < 0 < axes.get_ylim()[1]
        assert axes.get_xlim()[0] == pytest.approx(ENERGY[40])
    assert figure.axes[0].get_title(loc="right") == "a"
    written(figure, tmp_path)


def test_ticks_stay_below_the_room_for_labels(spectra: xr.DataArray) -> None:
    figure = plot.components(spectra, elements=["Ni", "Cr", "Si"])
    for axes, one in zip(figure.axes, spectra, strict=True):
        assert axes.get_yticks().max() <= float(one.max()) * 1.05
        assert axes.get_ylim()[1] > float(one.max()) * 1.2


def test_many_components_take_two_columns(spectra: xr.DataArray, tmp_path: Path) -> None:
    many = xr.concat([spectra] * 3, dim="component")
    figure = plot.components(many, elements=["Si"])
    assert len(shown(figure)) == 9
    assert len({round(axes.get_position().x0, 2) for axes in shown(figure)}) == 2
    written(figure, tmp_path)


def test_patterns_are_drawn_as_images(tmp_path: Path) -> None:
    k = np.linspace(-5, 5, 24)
    pattern = np.exp(-(k[:, None] ** 2 + k[None, :] ** 2))
    data = xr.DataArray(
        np.stack([pattern, pattern.T * 2]),
        dims=("component", "ky", "kx"),
        coords={"ky": axis(k, "ky", "1/nm"), "kx": axis(k, "kx", "1/nm")},
        attrs={"units": "counts"},
    )
    figure = plot.components(data, yscale="log")
    images = [axes for axes in figure.axes if axes.images]
    assert len(images) == 2
    assert images[0].images[0].norm.vmin > 0
    assert "2 nm⁻¹" in texts(figure)
    written(figure, tmp_path)


def test_components_refuse_other_dims(spectra: xr.DataArray) -> None:
    with pytest.raises(InputError, match="'component'"):
        plot.components(spectra.rename(component="k"))
    with pytest.raises(InputError, match="one or two signal dims"):
        plot.components(spectra.expand_dims(["a", "b"]))
    with pytest.raises(InputError, match="got 2, expected 3"):
        plot.components(spectra, names=["a", "b"])
    with pytest.raises(InputError, match="yscale"):
        plot.components(spectra, yscale="loglog")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="labels"):
        plot.components(spectra, labels="uv")  # type: ignore[arg-type]


def test_one_spectrum_in_eV_and_several(spectra: xr.DataArray, tmp_path: Path) -> None:
    one = spectra[2].assign_coords(energy=axis(ENERGY * 1000, "energy", "eV"))
    figure = plot.spectrum(one.assign_attrs(units="counts"), elements=["Si"])
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.texts] == ["Si Kα"]
    assert axes.texts[0].xy[0] == pytest.approx(1740, abs=2)
    assert axes.get_ylabel() == "counts"
    several = plot.spectrum(spectra, elements=["Si", "Ni"], yscale="sqrt")
    (axes,) = several.axes
    assert len(axes.get_legend().get_texts()) == 3
    assert {t.get_text() for t in axes.texts} == {"Ni Lα", "Ni Kα", "Si Kα"}
    written(several, tmp_path)
    with pytest.raises(InputError, match="sum or select"):
        plot.spectrum(spectra.expand_dims("y"))


def test_eels_edges() -> None:
    energy = np.arange(500.0, 800.0)
    data = xr.DataArray(
        1e8 * energy**-2.5, dims="energy", coords={"energy": axis(energy, "energy", "eV")}
    )
    (axes,) = plot.spectrum(data, elements=["O", "Mn", "Si"], labels="eels").axes
    assert [t.get_text() for t in axes.texts] == ["O K", "Mn L2,3"]


# --- maps ---------------------------------------------------------------------------------------


def bars_of(figure: Figure) -> list[Rectangle]:
    return figure.findobj(lambda a: isinstance(a, Rectangle) and a.get_label() == "scale bar")


def test_maps_carry_titles_scale_bars_and_units(loadings: xr.DataArray, tmp_path: Path) -> None:
    figure = plot.maps(loadings, names=["Ni", "Cr", "Si"])
    images = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in images] == ["Ni", "Cr", "Si"]
    np.testing.assert_array_equal(images[1].images[0].get_array(), loadings[..., 1])
    assert len(bars_of(figure)) == 3
    assert {bar.get_width() for bar in bars_of(figure)} == {10.0}  # of 64 nm
    said = texts(figure)
    assert "10 nm" in said
    assert "counts" in said
    assert images[0].images[0].get_extent() == [-2, 62, 46, -2]
    written(figure, tmp_path)


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_any_number_of_components(loadings: xr.DataArray, n: int, tmp_path: Path) -> None:
    many = xr.concat([loadings] * 7, dim="component").isel(component=slice(n))
    figure = plot.maps(many.assign_coords(component=np.arange(n)))
    images = [axes for axes in shown(figure) if axes.images]
    assert [axes.get_title() for axes in images] == [f"component {i}" for i in range(n)]
    assert figure.get_size_inches()[0] <= 7.3
    written(figure, tmp_path)


def test_own_or_shared_scales(loadings: xr.DataArray) -> None:
    data = loadings * xr.DataArray([1.0, 10.0, 100.0], dims="component")
    own = {a.images[0].norm.vmax for a in plot.maps(data).axes if a.images}
    shared = {a.images[0].norm.vmax for a in plot.maps(data, share_scale=True).axes if a.images}
    assert len(own) == 3
    assert len(shared) == 1


def test_scores_of_both_signs_are_symmetric_about_zero(loadings: xr.DataArray) -> None:
    figure = plot.maps(loadings - loadings.mean())
    drawn = figure.axes[0].images[0]
    assert drawn.cmap.name == style.DIVERGING
    assert drawn.norm.vmin == -drawn.norm.vmax
    assert plot.maps(loadings).axes[0].images[0].cmap.name == style.SEQUENTIAL


def test_one_hot_pixel_does_not_hide_the_map(loadings: xr.DataArray) -> None:
    big = xr.DataArray(np.ones((64, 64)), dims=("y", "x")) * np.linspace(1, 2, 64)
    big[3, 3] = 1e6
    drawn = plot.image(big).axes[0].images[0]
    assert drawn.norm.vmax < 3


def test_unused_pixels_and_empty_maps(loadings: xr.DataArray, tmp_path: Path) -> None:
    loadings[:3, :, 0] = np.nan
    loadings[..., 1] = np.nan
    loadings[..., 2] = 0.0
    figure = plot.maps(loadings)
    assert np.ma.count_masked(figure.axes[0].images[0].get_array()) == 3 * 16
    written(figure, tmp_path)


def test_tilt_series_show_evenly_spaced_frames(loadings: xr.DataArray, tmp_path: Path) -> None:
    figure = plot.maps(tilts(loadings), max_frames=3)
    images = [axes for axes in figure.axes if axes.images]
    assert len(images) == 9
    assert [axes.get_title() for axes in images[:3]] == ["tilt = -30°", "tilt = 0°", "tilt = 30°"]
    assert [axes.get_ylabel() for axes in images[::3]] == [
        "component 0",
        "component 1",
        "component 2",
    ]
    # Frames of one component share a scale, so that they compare.
    assert len({axes.images[0].norm.vmax for axes in images[:3]}) == 1
    written(figure, tmp_path)


def test_four_navigation_dims(loadings: xr.DataArray, tmp_path: Path) -> None:
    data = xr.concat(
        [tilts(loadings, 3)] * 2,
        dim=xr.DataArray([0.0, 10.0], dims="time", name="time", attrs={"units": "s"}),
    )
    figure = plot.maps(data, max_frames=4)
    titles = [axes.get_title() for axes in figure.axes if axes.images][:4]
    assert titles[0] == "time = 0 s\ntilt = -30°"
    assert titles[-1] == "time = 10 s\ntilt = 30°"
    written(figure, tmp_path)


def test_line_scans_are_curves(loadings: xr.DataArray, tmp_path: Path) -> None:
    figure = plot.maps(loadings.isel(y=0))
    assert len(figure.axes) == 3
    np.testing.assert_array_equal(figure.axes[2].lines[0].get_ydata(), loadings[0, :, 2])
    assert figure.axes[2].get_xlabel() == "x (nm)"
    written(figure, tmp_path)


def test_maps_compute_only_what_they_draw(loadings: xr.DataArray) -> None:
    touched: list[int] = []

    def note(block: np.ndarray, block_info: dict | None = None) -> np.ndarray:
        if block_info:
            touched.append(block_info[0]["chunk-location"][0])
        return block

    series = tilts(loadings, 9)
    lazy = series.copy(data=da.from_array(series.values, chunks=(1, 12, 16, 3)).map_blocks(note))
    with dask.config.set(scheduler="sync"):
        plot.maps(lazy, max_frames=3)
    assert sorted(set(touched)) == [0, 4, 8]
    assert len(touched) == 3


def test_maps_refuse(loadings: xr.DataArray) -> None:
    with pytest.raises(InputError, match="by="):
        plot.maps(loadings, by="k")
    with pytest.raises(InputError, match="one to four"):
        plot.maps(loadings.expand_dims(["a", "b", "c"]))


def test_pixels_without_a_unit_and_axes_of_two_kinds() -> None:
    plain = plot.image(xr.DataArray(np.random.default_rng(0).random((30, 40)), dims=("y", "x")))
    assert "10 px" in texts(plain)
    mixed = xr.DataArray(
        np.eye(5),
        dims=("time", "x"),
        coords={"time": axis(range(5), "time", "s"), "x": axis(range(5), "x", "nm")},
    )
    figure = plot.image(mixed)
    assert not bars_of(figure)
    assert figure.axes[0].get_xlabel() == "x (nm)"
    assert figure.axes[0].get_ylabel() == "time (s)"
    with pytest.raises(InputError, match="expected two"):
        plot.image(xr.DataArray(np.ones(3), dims="x"))


def test_line_maps_write_lines_in_greek(loadings: xr.DataArray, tmp_path: Path) -> None:
    lines = loadings.rename(component="line").assign_coords(line=["Ni_Ka", "Cr_Kb", "Pt_La"])
    figure = plot.line_maps(lines)
    assert [axes.get_title() for axes in figure.axes if axes.images] == ["Ni Kα", "Cr Kβ", "Pt Lα"]
    written(figure, tmp_path)
    # Net counts below zero are noise: the scale begins at zero, and its bar says that there is more.
    net = plot.line_maps(lines - 2.0).axes[0].images[0]
    assert net.cmap.name == style.SEQUENTIAL
    assert net.norm.vmin == 0.0


def test_raw_beside_denoised(loadings: xr.DataArray, tmp_path: Path) -> None:
    smooth = loadings.rolling(y=3, x=3, center=True, min_periods=1).mean()
    one = plot.raw_and_denoised(loadings[..., 0], smooth[..., 0])
    images = [axes for axes in one.axes if axes.images]
    assert [axes.get_title() for axes in images] == ["raw", "denoised"]
    assert images[0].images[0].norm.vmax == images[1].images[0].norm.vmax
    rows = plot.raw_and_denoised(
        loadings.rename(component="line").assign_coords(line=["Ni_Ka", "Cr_Ka", "Si_Ka"]),
        smooth.rename(component="line").assign_coords(line=["Ni_Ka", "Cr_Ka", "Si_Ka"]),
        by="line",
        names=("counts", "model"),
    )
    images = [axes for axes in rows.axes if axes.images]
    assert len(images) == 6
    assert images[0].get_ylabel() == "Ni Kα"
    written(rows, tmp_path)


def test_raw_beside_denoised_spectra(spectra: xr.DataArray, tmp_path: Path) -> None:
    figure = plot.raw_and_denoised(spectra[0], spectra[0] * 1.1)
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["raw", "denoised"]
    assert len(plot.raw_and_denoised(spectra, spectra, by="component").axes) == 3
    written(figure, tmp_path)
    with pytest.raises(InputError, match="expected the same"):
        plot.raw_and_denoised(spectra[0], spectra[0, :-1])
    many = spectra.expand_dims(list("abc"))
    with pytest.raises(InputError, match="one to four"):
        plot.raw_and_denoised(many, many)


# --- labels -------------------------------------------------------------------------------------


@pytest.fixture
def labels(loadings: xr.DataArray) -> xr.DataArray:
    found = loadings.argmax("component").astype("int32")
    found[0, :4] = -1
    return found


def test_label_map(labels: xr.DataArray, tmp_path: Path) -> None:
    figure = plot.label_map(labels)
    (drawn,) = figure.axes[0].images
    assert np.ma.count_masked(drawn.get_array()) == 4
    assert drawn.cmap(drawn.norm(np.ma.masked_all(1)))[0, 3] == 0  # transparent
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert len(legend) == 3
    share = 100 * int((labels == 0).sum()) / (12 * 16 - 4)
    assert legend[0] == f"cluster 0 ({share:.0f} %)"
    colors = [patch.get_facecolor() for patch in figure.legends[0].get_patches()]
    assert len(set(colors)) == 3
    # The legend's colour is the map's, also where a cluster is empty.
    only = plot.label_map(labels.where(labels != 1, 2))
    assert [t.get_text().split(" (")[0] for t in only.legends[0].get_texts()] == [
        "cluster 0",
        "cluster 2",
    ]
    assert only.legends[0].get_patches()[1].get_facecolor() == colors[2]
    written(figure, tmp_path)


def test_label_maps_of_other_dims(labels: xr.DataArray, tmp_path: Path) -> None:
    names = ["matrix", "layer", "support"]
    series = plot.label_map(tilts(labels), names=names, max_frames=4)
    assert len(series.axes) == 4
    assert series.axes[0].get_title() == "tilt = -30°"
    assert series.legends[0].get_texts()[2].get_text().startswith("support")
    written(series, tmp_path)
    scan = plot.label_map(labels.isel(y=3))
    assert scan.axes[0].get_xlabel() == "x (nm)"
    written(scan, tmp_path)
    written(plot.label_map(xr.full_like(labels, -1)), tmp_path)
    with pytest.raises(InputError, match="got 2, expected 3"):
        plot.label_map(labels, names=["a", "b"])


# --- overview -----------------------------------------------------------------------------------


@pytest.fixture
def cube(spectra: xr.DataArray, loadings: xr.DataArray) -> xr.DataArray:
    data = np.random.default_rng(0).poisson(loadings.values * 20 @ spectra.values)
    made = xr.DataArray(
        da.from_array(data.astype("uint8"), chunks=(6, 16, -1)),
        dims=("y", "x", "energy"),
        coords={"y": loadings["y"], "x": loadings["x"], "energy": spectra["energy"]},
        attrs={"units": "counts", "sig_dims": ["energy"]},
    )
    # A companion image rides along; it must not be in the way of a sum.
    return made.assign_coords(HAADF=(("y", "x"), np.ones((12, 16))))


def test_overview_of_a_map_reads_it_once(cube: xr.DataArray, tmp_path: Path) -> None:
    reads: list[int] = []

    def note(block: np.ndarray) -> np.ndarray:
        reads.append(block.size)
        return block

    watched = cube.copy(
        data=cube.data.map_blocks(note, dtype=cube.dtype, meta=np.empty((0, 0, 0), "u1"))
    )
    with dask.config.set(scheduler="sync"):
        figure = plot.cube_overview(watched, elements=["Ni", "Cr", "Si"], title="a map")
    assert sum(reads) == cube.size
    image = next(axes for axes in figure.axes if axes.images)
    np.testing.assert_array_equal(image.images[0].get_array(), cube.sum("energy").values)
    curve = next(axes for axes in figure.axes if axes.get_xlabel() == "energy (keV)")
    np.testing.assert_array_equal(curve.lines[0].get_ydata(), cube.sum(["y", "x"]).values)
    assert "Ni Kα" in [t.get_text() for t in curve.texts]
    assert "a map" in texts(figure)
    written(figure, tmp_path)


def test_overview_of_everything_else(cube: xr.DataArray, tmp_path: Path) -> None:
    scan = plot.cube_overview(cube.isel(y=0))
    assert any(axes.images and axes.get_xlabel() == "energy (keV)" for axes in scan.axes)
    written(scan, tmp_path)
    series = plot.cube_overview(tilts(cube, 6))
    assert sum(bool(axes.images) for axes in series.axes) >= 4
    written(series, tmp_path)
    written(plot.cube_overview(cube.isel(y=0, x=0)), tmp_path)
    image = cube.isel(energy=50, drop=True)
    written(plot.cube_overview(image), tmp_path)
    written(plot.cube_overview(tilts(image), sig_dims=[]), tmp_path)
    patterns = cube.isel(energy=slice(20)).expand_dims({"time": 3}, axis=0)
    figure = plot.cube_overview(patterns, nav_dims=["time", "energy"], sig_dims=["y", "x"])
    written(figure, tmp_path)
    floats = cube.astype(float) - 1.0
    written(plot.cube_overview(floats), tmp_path)


def test_overview_refuses_other_dims(cube: xr.DataArray) -> None:
    with pytest.raises(InputError, match="sig_dims="):
        plot.cube_overview(cube, nav_dims=["y"], sig_dims=["energy"])


# --- arithmetic behind the looks ----------------------------------------------------------------


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12), st.floats(0.1, 20))
def test_spread_keeps_distance_and_order(targets: list[float], gap: float) -> None:
    targets = sorted(targets)
    placed = style.spread(targets, gap)
    assert np.all(np.diff(placed) >= gap - 1e-9)
    if np.all(np.diff(targets) >= gap):
        np.testing.assert_allclose(placed, targets, atol=1e-9)
    # Sideways moves cancel: the group stays where it was.
    assert np.mean(placed) == pytest.approx(np.mean(targets), abs=1e-6)
    bounded = style.spread(targets, gap, (5.0, 500.0))
    assert bounded[0] >= 5.0
    assert bounded[-1] <= 500.0
    assert np.all(np.diff(bounded) >= gap - 1e-9)


@given(st.floats(1e-6, 1e6))
def test_round_lengths(length: float) -> None:
    rounded = style.round_length(length)
    assert 0.4 * length <= rounded <= length * (1 + 1e-6)
    assert f"{rounded:.0e}"[0] in "125"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.25, "0.25"),
        (12000.0, "12000"),
        (2e6, r"$2{\times}10^{6}$"),
        (1e-5, "$10^{-5}$"),
        (-3e-4, r"$-3{\times}10^{-4}$"),
    ],
)
def test_short_numbers(value: float, text: str) -> None:
    assert style.short_number(value) == text
