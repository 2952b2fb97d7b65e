"""HyperSpy itself opens what emcube writes; in a notebook emcube's estimators run on its signals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import emcube as em
from emcube.errors import InputError
from emcube.store import compute_digest

LOOK = """
import json, sys, warnings
import numpy as np
import hyperspy.api as hs
s = hs.load(sys.argv[1], lazy=sys.argv[2] == "lazy")
data = np.asarray(s.data)
lr = s.learning_results
print(json.dumps({
    "class": type(s).__name__,
    "shape": list(s.data.shape),
    "dtype": str(s.data.dtype),
    "sum": int(data.sum()),
    "weighted": int((data.astype("int64") * np.arange(data.size).reshape(data.shape) % 1009).sum()),
    "axes": [
        {"name": a.name, "units": str(a.units), "navigate": bool(a.navigate), "binned": bool(a.is_binned),
         "first": float(a.axis[0]), "last": float(a.axis[-1]), "uniform": bool(a.is_uniform)}
        for a in s.axes_manager._axes
    ],
    "title": s.metadata.General.title,
    "date": s.metadata.General.date,
    "time": s.metadata.General.time,
    "type": s.metadata.Signal.signal_type,
    "elements": list(s.metadata.Sample.elements),
    "sample": s.metadata.Sample.name,
    "beam": s.metadata.Acquisition_instrument.TEM.beam_energy,
    "tilt": s.metadata.Acquisition_instrument.TEM.Stage.tilt_alpha,
    "resolution": s.metadata.Acquisition_instrument.TEM.Detector.EDS.energy_resolution_MnKa,
    "original": s.original_metadata.Header.Name,
    "lines": len(s.original_metadata.Lines),
    "haadf": float(np.asarray(s.metadata.emcube.coords.HAADF).sum()),
}))
"""


@pytest.mark.parametrize("suffix", [".hspy", ".zspy"])
@pytest.mark.parametrize("how", ["lazy", "loaded"])
def test_hyperspy_opens_it(hyperspy, tmp_path: Path, cube, suffix: str, how: str) -> None:
    (file,) = em.export(cube, tmp_path / f"map{suffix}").files
    found = hyperspy(LOOK, file, how)
    values = cube.values.astype(np.int64)
    assert found["shape"] == list(cube.shape)
    assert found["dtype"] == "uint16"
    assert found["sum"] == values.sum()
    assert found["weighted"] == (values * np.arange(values.size).reshape(values.shape) % 1009).sum()
    assert [a["name"] for a in found["axes"]] == ["y", "x", "Energy"]
    assert [a["navigate"] for a in found["axes"]] == [True, True, False]
    assert [a["units"] for a in found["axes"]] == ["um", "nm", "keV"]
    assert [a["uniform"] for a in found["axes"]] == [True, False, True]
    assert [a["binned"] for a in found["axes"]] == [False, False, True]
    for axis, dim in zip(found["axes"], cube.dims, strict=True):
        np.testing.assert_allclose([axis["first"], axis["last"]], cube[dim].values[[0, -1]])
    assert (found["title"], found["date"], found["time"]) == (
        "oxide on iron",
        "2026-02-03",
        "04:05:06",
    )
    assert (found["type"], found["elements"], found["sample"]) == (
        "EDS_TEM",
        ["Fe", "O"],
        "FIB lamella 7",
    )
    assert (found["beam"], found["tilt"], found["resolution"]) == (200.0, -10.0, 130.0)
    assert (found["original"], found["lines"]) == ("µm", 12)
    assert found["haadf"] == pytest.approx(float(cube["HAADF"].sum()))
    assert ("Lazy" in found["class"]) == (how == "lazy")


SAVE_AGAIN = """
import json, sys
import hyperspy.api as hs
s = hs.load(sys.argv[1])
s.metadata.Acquisition_instrument.TEM.beam_energy = 80.0
s.save(sys.argv[2], overwrite=True)
s.inav[2:9, 1:].save(sys.argv[3], overwrite=True)
print(json.dumps(True))
"""


@pytest.mark.parametrize("suffix", [".hspy", ".zspy"])
def test_a_cube_survives_hyperspy(hyperspy, tmp_path: Path, cube, suffix: str) -> None:
    """Written here, changed, cut and saved by HyperSpy, opened here: changes hold, the rest is as it was."""
    if suffix == ".hspy":
        pytest.importorskip("rsciio", reason="RosettaSciIO reads .hspy")
    (file,) = em.export(cube, tmp_path / f"map{suffix}").files
    again, cut = tmp_path / f"again{suffix}", tmp_path / f"cut{suffix}"
    hyperspy(SAVE_AGAIN, file, again, cut)
    back = em.open(again)
    assert compute_digest(back) == compute_digest(cube)
    assert back.attrs["metadata"]["beam_energy_keV"] == 80.0
    assert back.attrs["metadata"]["detector"]["solid_angle_sr"] == 0.7
    assert "HAADF" in back.coords
    part = em.open(cut)
    assert part.dims == cube.dims
    np.testing.assert_array_equal(part.values, cube.values[1:, 2:9])
    np.testing.assert_array_equal(part["energy"].values, cube["energy"].values)
    # In the unit that HyperSpy's axis has, turned into emcube's: the image of the old grid is gone.
    assert "HAADF" not in part.coords


RESULTS = """
import json, sys
import numpy as np
import hyperspy.api as hs
s = hs.load(sys.argv[1])
lr = s.learning_results
model = s.get_decomposition_model()
factors, loadings = s.get_decomposition_factors(), s.get_decomposition_loadings()
bss = s.get_bss_model()
labels = s.get_cluster_labels(merged=True)
signals = s.get_cluster_signals()
print(json.dumps({
    "algorithm": lr.decomposition_algorithm,
    "significant": lr.number_significant_components,
    "poisson": bool(lr.poissonian_noise_normalized),
    "factors": factors.data.tolist(),
    "loadings": loadings.data.tolist(),
    "model": model.data.tolist(),
    "bss": bss.data.tolist(),
    "bss_algorithm": lr.bss_algorithm,
    "printed": str(lr),
    "variance": np.asarray(s.get_scree_plot_data().data).tolist(),
    "labels": np.asarray(labels.data).tolist(),
    "clusters": signals.data.tolist(),
}))
"""
STEPS = [
    {"estimate_n_components": {}},
    {"pca": {"n_components": 5}},
    {"nmf": {"n_components": 3, "random_state": 0}},
    {"kmeans": {"n_clusters": 3, "random_state": 0}},
]


@pytest.mark.parametrize("suffix", [".hspy", ".zspy"])
def test_a_result_is_hyperspys_learning_results(
    hyperspy, tmp_path: Path, plain, suffix: str
) -> None:
    result = em.run({"emcube": 1, "steps": STEPS}, plain, out=tmp_path / "result")
    written = em.export(plain, tmp_path / f"map{suffix}", result=result)
    assert any("recipe, provenance" in line for line in written.lost)
    found = hyperspy(RESULTS, written.files[0])
    pca, nmf, kmeans = result["pca"], result["nmf"], result["kmeans"]
    assert (found["algorithm"], found["poisson"], found["bss_algorithm"]) == ("PCA", True, "NMF")
    assert found["significant"] == result["estimate_n_components"].attrs["n_components"]
    # HyperSpy prints the length of a matrix that an NMF has not.
    assert "algorithm=PCA" in found["printed"]
    assert "algorithm=NMF\nn_components=3" in found["printed"]
    np.testing.assert_array_equal(found["factors"], pca["components"].values)
    np.testing.assert_array_equal(found["loadings"], np.moveaxis(pca["loadings"].values, -1, 0))
    rebuilt = pca["loadings"].values @ pca["components"].values
    np.testing.assert_allclose(found["model"], rebuilt, atol=1e-9)
    np.testing.assert_allclose(found["variance"], pca["explained_variance_ratio"].values)
    np.testing.assert_allclose(
        found["bss"], nmf["loadings"].values @ nmf["components"].values, atol=1e-9
    )
    labels = kmeans["labels"].values
    np.testing.assert_array_equal(found["labels"], labels)
    for k in range(3):
        mean = plain.values[labels == k].mean(axis=0)
        np.testing.assert_allclose(found["clusters"][k], mean, rtol=0.2, atol=0.5)


def test_a_centred_pca_rebuilds_its_data(hyperspy, tmp_path: Path, plain) -> None:
    """HyperSpy's mean is one of pixels: the mean spectrum becomes a component, and the model is whole."""
    values = plain.astype(np.float64).assign_attrs(plain.attrs)
    steps = [{"pca": {"n_components": 40, "noise": None}}]
    result = em.run({"emcube": 1, "steps": steps}, values, out=tmp_path / "result")
    (file,) = em.export(values, tmp_path / "map.hspy", result=result).files
    code = """
import json, sys
import hyperspy.api as hs
print(json.dumps(hs.load(sys.argv[1]).get_decomposition_model().data.tolist()))
"""
    np.testing.assert_allclose(hyperspy(code, file), values.values, atol=1e-8)


def test_a_result_of_another_cube_is_refused(tmp_path: Path, plain) -> None:
    from emcube.store import write_cube

    result = em.run({"emcube": 1, "steps": STEPS[1:2]}, plain, out=tmp_path / "result")
    with pytest.raises(InputError, match="of a cube of shape"):
        em.export(plain.isel(x=slice(5)), tmp_path / "a.hspy", result=result)
    other = em.open(write_cube(plain + 1, tmp_path / "other.zarr"))
    with pytest.raises(InputError, match="is of another cube"):
        em.export(other, tmp_path / "a.hspy", result=result)
    with pytest.raises(InputError, match="a result alone"):
        em.export(result, tmp_path / "a.hspy")


def test_what_the_recipe_prepared_is_prepared_again(tmp_path: Path, plain) -> None:
    prepare = [{"bin": {"y": 2, "x": 2}}]
    result = em.run(
        {"emcube": 1, "prepare": prepare, "steps": STEPS[1:2]}, plain, out=tmp_path / "result"
    )
    (file,) = em.export(plain, tmp_path / "a.zspy", result=result).files
    assert em.open(file).shape == (6, 7, 40)


# --- in a notebook's environment ----------------------------------------------------------------------

NOTEBOOK = """
import json, sys
import numpy as np
import emcube as em
import hyperspy.api as hs
hs.preferences.General.show_progressbar = False
cube = em.open(sys.argv[1])
"""


def test_a_signal_and_back(both, tmp_path: Path, cube) -> None:
    from emcube.store import write_cube

    store = write_cube(cube, tmp_path / "map.zarr")
    code = f"""{NOTEBOOK}
from emcube.store import compute_digest
s = cube.em.to_hyperspy()
loaded = cube.compute().em.to_hyperspy()
back = em.from_hyperspy(s)
cut = em.from_hyperspy(s.inav[2:9, 1:].isig[5:])
foreign = hs.signals.Signal1D(np.arange(24.0).reshape(2, 3, 4))
plain = em.from_hyperspy(foreign)
print(json.dumps({{
    "class": type(s).__name__, "loaded": type(loaded).__name__,
    "same": compute_digest(back) == compute_digest(cube),
    "lazy": back.chunks is not None,
    "metadata": {{k: v for k, v in back.attrs["metadata"].items() if k != "source"}},
    "earlier": back.attrs["metadata"]["source"]["extra"]["earlier"]["file"],
    "coords": sorted(map(str, back.coords)),
    "cut": list(cut.shape), "cut_dims": list(cut.dims),
    "plain": [list(plain.dims), plain.em.sig_dims[0]],
}}))
"""
    found = both(code, store)
    assert (found["class"], found["loaded"]) in (
        ("LazySignal1D", "Signal1D"),
        ("LazyEDSTEMSpectrum", "EDSTEMSpectrum"),
    )
    assert found["same"]
    assert found["lazy"]
    assert found["metadata"] == {k: v for k, v in cube.attrs["metadata"].items() if k != "source"}
    assert found["earlier"] == "map.bcf"
    assert found["coords"] == ["HAADF", "energy", "phase", "run", "x", "y"]
    assert (found["cut"], found["cut_dims"]) == ([11, 7, 35], ["y", "x", "energy"])
    assert found["plain"] == [["y", "x", "channel"], "channel"]


def test_estimators_run_on_a_signal(both, tmp_path: Path, cube) -> None:
    """One line in place of ``s.decomposition``; what follows finds its answer, the same as emcube's own."""
    from emcube.store import write_cube

    store = write_cube(cube, tmp_path / "map.zarr")
    code = f"""{NOTEBOOK}
found = {{}}
for how in ("lazy", "loaded"):
    s = (cube if how == "lazy" else cube.compute()).em.to_hyperspy()
    nmf = em.decompose(s, em.MiniBatchNMF(3, random_state=0))
    model = s.get_decomposition_model()
    own = em.MiniBatchNMF(3, random_state=0).fit(cube)
    found[how] = {{
        "factors": bool(np.array_equal(s.learning_results.factors.T, own.components_.values)),
        "loadings": bool(np.array_equal(
            s.learning_results.loadings.reshape(12, 14, 3), own.transform(cube).values)),
        "returned": nmf.components_.shape[0],
        "model": float(abs(np.asarray(model.data) - own.inverse_transform(own.transform(cube)).values).max()),
    }}
    em.decompose(s, em.IncrementalPCA(5))
    found[how]["scree"] = len(s.get_scree_plot_data().data)
    found[how]["poisson"] = bool(s.learning_results.poissonian_noise_normalized)
    em.decompose(s, em.KMeans(3, random_state=0))
    labels = s.get_cluster_labels(merged=True)
    km = em.KMeans(3, random_state=0).fit(cube)
    found[how]["labels"] = bool(np.array_equal(np.asarray(labels.data), km.labels_.values))
    learned = em.interop.learned(s)
    found[how]["learned"] = bool(np.array_equal(learned["labels"].values, km.labels_.values))
    s.save(sys.argv[2], overwrite=True)
    again = hs.load(sys.argv[2])
    found[how]["saved"] = bool(np.array_equal(again.learning_results.factors, s.learning_results.factors))
print(json.dumps(found))
"""
    found = both(code, store, tmp_path / "s.hspy")
    for how in ("lazy", "loaded"):
        got = found[how]
        assert all(
            got[k] for k in ("factors", "loadings", "poisson", "labels", "learned", "saved")
        ), found
        assert (got["returned"], got["scree"]) == (3, 5)
        assert got["model"] < 1e-9


def test_masks_mean_what_hyperspy_means(both, tmp_path: Path, cube) -> None:
    from emcube.store import write_cube

    store = write_cube(cube, tmp_path / "map.zarr")
    code = f"""{NOTEBOOK}
s = cube.em.to_hyperspy()
out = np.zeros((12, 14), bool)
out[:3] = True
channels = np.zeros(40, bool)
channels[:4] = True
em.decompose(s, em.IncrementalPCA(3), navigation_mask=out, signal_mask=hs.signals.Signal1D(channels))
lr = s.learning_results
loadings = lr.loadings.reshape(12, 14, 3)
try:
    em.decompose(s, em.IncrementalPCA(3), navigation_mask=out.T)
except em.errors.InputError as error:
    refused = str(error)
try:
    em.decompose(s, object())
except em.errors.InputError as error:
    unknown = str(error)
try:
    em.from_hyperspy(np.ones(3))
except em.errors.InputError as error:
    nothing = str(error)
own = em.IncrementalPCA(3).fit(cube.isel(y=slice(3, None), energy=slice(4, None)))
print(json.dumps({{
    "nan": bool(np.isnan(loadings[:3]).all() and not np.isnan(loadings[3:]).any()),
    "factors": bool(np.isnan(lr.factors[:4]).all()),
    "same": float(abs(lr.factors[4:].T - own.components_.values).max()),
    "masks": [bool(np.array_equal(lr.navigation_mask, out)), bool(np.array_equal(lr.signal_mask, channels))],
    "refused": refused, "unknown": unknown, "nothing": nothing,
}}))
"""
    found = both(code, store)
    assert found["nan"]
    assert found["factors"]
    assert found["same"] < 1e-10
    assert found["masks"] == [True, True]
    assert "expected bool of shape (12, 14)" in found["refused"]
    assert "expected IncrementalPCA, MiniBatchNMF or KMeans" in found["unknown"]
    assert "expected a signal of HyperSpy" in found["nothing"]


def test_a_signal_with_axes_of_its_own_order(both, tmp_path: Path, cube) -> None:
    """Falling energies are turned round in a cube: factors come back in the signal's own order."""
    code = """
import json
import numpy as np
import emcube as em
import hyperspy.api as hs
rng = np.random.default_rng(0)
counts = rng.poisson(50 * rng.random((6, 30)) ** 3, (8, 6, 30)).astype("uint16")
s = hs.signals.Signal1D(counts)
s.axes_manager[-1].scale, s.axes_manager[-1].offset, s.axes_manager[-1].units = -0.1, 3.0, "keV"
em.decompose(s, em.IncrementalPCA(2))
own = em.IncrementalPCA(2).fit(counts.reshape(-1, 30))
print(json.dumps(float(abs(s.learning_results.factors.T - own.components_).max())))
"""
    assert both(code) < 1e-10


def test_a_lazy_signal_is_never_held(both) -> None:
    """Of 192 blocks of 1 MiB, under a budget of 256 MiB in all, at most a third are there at one time."""
    code = """
import json, os, threading, weakref
import dask.array as da
import numpy as np
import emcube as em
import hyperspy.api as hs
os.environ["EMCUBE_MEMORY"] = "256MiB"
tile = np.random.default_rng(0).poisson(2.0, (16, 64, 256))
alive, most, lock = set(), [0], threading.Lock()
def block(block_info=None):
    values = np.empty([b - a for a, b in block_info[None]["array-location"]], "float32")
    values[...] = tile
    with lock:
        alive.add(id(values))
        most[0] = max(most[0], len(alive))
    weakref.finalize(values, alive.discard, id(values))
    return values
data = da.map_blocks(block, chunks=((16,) * 192, (64,), (256,)), dtype="float32")
s = hs.signals.Signal1D(data).as_lazy()
try:
    em.decompose(s, em.IncrementalPCA(2, noise=None))
finally:
    del os.environ["EMCUBE_MEMORY"]
shape = s.learning_results.loadings.shape
print(json.dumps({"most": most[0], "lazy": s._lazy and hasattr(s.data, "dask"), "shape": list(shape)}))
"""
    found = both(code)
    assert 0 < found["most"] <= 96
    assert found["lazy"]
    assert found["shape"] == [192 * 16 * 64, 3]


def test_masked_signals(both) -> None:
    """Masked values are NaN in a cube, and an estimator says where it finds them."""
    code = """
import json
import numpy as np
import emcube as em
import hyperspy.api as hs
counts = np.arange(20, dtype="uint8").reshape(4, 5)
s = hs.signals.Signal1D(np.ma.masked_less(counts, 7))
cube = em.from_hyperspy(s)
try:
    em.decompose(s, em.IncrementalPCA(2))
except em.errors.InputError as error:
    said = str(error)
print(json.dumps([int(np.isnan(cube.values).sum()), said]))
"""
    missing, said = both(code)
    assert missing == 7
    assert "must be finite" in said
