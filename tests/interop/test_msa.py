"""EMSA/MAS spectra: every digit and every word comes back, other programs read a spectrum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.errors import InputError, StoreError
from tests.interop.conftest import METADATA


def spectrum(values, energy=None, **attrs) -> xr.DataArray:
    n = len(values)
    return em.make_cube(
        np.asarray(values),
        dims=("energy",),
        sig_dims=("energy",),
        coords={"energy": np.arange(n) * 0.01 if energy is None else energy},
        units={"energy": "keV"},
        metadata=attrs.pop("metadata", METADATA),
        **attrs,
    )


@pytest.mark.parametrize(
    "values",
    [
        np.arange(50, dtype=np.uint32),
        np.random.default_rng(0).random(50),
        np.random.default_rng(0).random(50, dtype=np.float32),
        np.array([-3, 0, 5, 2**40], dtype=np.int64),
        np.array([1.5, np.nan, np.nan, 1e-300, np.nan]),
        np.zeros(4),
    ],
    ids=["counts", "float64", "float32", "negative", "gaps", "zeros"],
)
@pytest.mark.parametrize("axis", ["even", "uneven", "linspace"])
def test_a_spectrum_comes_back_whole(tmp_path: Path, values, axis: str) -> None:
    n = len(values)
    energy = {
        "even": np.arange(n) * 0.01,
        "uneven": np.cumsum(np.random.default_rng(1).random(n) + 0.1),
        "linspace": np.linspace(0.1, 0.77, n),
    }[axis]
    given = spectrum(values, energy)
    written = em.export(given, tmp_path / "a.msa")
    back = em.open(written.files[0])
    np.testing.assert_array_equal(back.values, values)
    assert back.dtype == values.dtype
    xr.testing.assert_identical(back["energy"].variable, given["energy"].variable)
    assert back.attrs["units"] == given.attrs["units"]
    found = {k: v for k, v in back.attrs["metadata"].items() if k != "source"}
    assert found == {k: v for k, v in METADATA.items() if k != "source"}
    assert ("channels that were left out" in " ".join(written.lost)) == bool(np.isnan(values).any())


def test_the_header_is_the_standards(tmp_path: Path) -> None:
    (file,) = em.export(spectrum(np.arange(5, dtype=np.uint32)), tmp_path / "a.msa").files
    text = file.read_bytes().decode("ascii")
    lines = text.split("\r\n")
    assert lines[0] == "#FORMAT      : EMSA/MAS spectral data file"
    keys = [line.split(":")[0].strip("# ") for line in lines if line.startswith("#")]
    required = [
        "FORMAT",
        "VERSION",
        "TITLE",
        "DATE",
        "TIME",
        "OWNER",
        "NPOINTS",
        "NCOLUMNS",
        "XUNITS",
    ]
    required += ["YUNITS", "DATATYPE", "XPERCHAN", "OFFSET"]
    assert keys[: len(required)] == required
    assert keys[-1] == "ENDOFDATA"
    assert "#BEAMKV   -kV: 200.0" in lines
    assert "#DATE        : 03-FEB-2026" in lines
    assert max(map(len, lines)) <= 80
    assert [float(x.strip(",")) for x in lines if x and not x.startswith("#")] == [0, 1, 2, 3, 4]


def test_rosettasciio_reads_it(tmp_path: Path) -> None:
    reader = pytest.importorskip("rsciio.msa")
    values = np.random.default_rng(0).random(30)
    title = {**METADATA, "title": "a: b - c: " + "very long " * 20}
    written = em.export(spectrum(values, metadata=title), tmp_path / "a.msa")
    (found,) = reader.file_reader(str(written.files[0]))
    np.testing.assert_array_equal(found["data"], values)
    (axis,) = found["axes"]
    assert (axis["scale"], axis["offset"], axis["units"]) == (0.01, 0.0, "keV")
    assert found["metadata"]["Signal"]["signal_type"].startswith("EDS")
    assert "title: cut to 64 characters" in " ".join(written.lost)


def test_what_was_edited_stays_edited(tmp_path: Path) -> None:
    (file,) = em.export(spectrum(np.arange(5, dtype=np.uint32)), tmp_path / "a.msa").files
    text = file.read_text().replace("#BEAMKV   -kV: 200.0", "#BEAMKV   -kV: 15.0")
    file.write_text(text)
    found = em.open(file).attrs["metadata"]
    assert (found["beam_energy_keV"], found["elements"]) == (15.0, ["Fe", "O"])
    # A program that drops the lines it does not know leaves a plain spectrum.
    file.write_text("\n".join(x for x in text.splitlines() if not x.startswith("##")) + "\n")
    assert em.open(file).values.tolist() == [0, 1, 2, 3, 4]
    # And lines that were garbled are no entry.
    file.write_text(text.replace("##EMCUBE000 : ", "##EMCUBE000 : !!"))
    assert em.open(file).values.tolist() == [0, 1, 2, 3, 4]


def test_components_of_a_result(tmp_path: Path, plain) -> None:
    steps = [{"pca": {"n_components": 3}}, {"nmf": {"n_components": 2, "random_state": 0}}]
    result = em.run({"emcube": 1, "steps": steps}, plain, out=tmp_path / "result")
    written = em.export(result, tmp_path / "spectra.msa")
    names = [path.name for path in written.files]
    assert names == [f"spectra-pca-{i}.msa" for i in range(3)] + [
        f"spectra-nmf-{i}.msa" for i in range(2)
    ]
    for i in range(2):
        back = em.open(tmp_path / f"spectra-nmf-{i}.msa")
        component = result["nmf"]["components"].isel(component=i).load()
        np.testing.assert_array_equal(back.values, component.values)
        xr.testing.assert_identical(back["energy"].variable, component["energy"].variable)
        assert back.attrs["units"] == "1 per channel"
        assert int(back["component"]) == i
    assert "spectra only" in written.lost[-1]
    with pytest.raises(StoreError, match="it exists"):
        em.export(result, tmp_path / "spectra.msa")


def test_what_is_no_spectrum(tmp_path: Path, cube) -> None:
    with pytest.raises(InputError, match="at most 1000"):
        em.export(cube.isel(x=[0] * 100).assign_coords(x=np.arange(100)), tmp_path / "a.msa")
    with pytest.raises(InputError, match="one signal dim of numbers"):
        em.export(cube.isel(energy=0, drop=True), tmp_path / "a.msa")
    assert not list(tmp_path.iterdir())


def test_what_a_spectrum_cannot_hold_is_told(tmp_path: Path) -> None:
    given = spectrum(np.array([2**53 + 1, 5], dtype=np.int64)).assign_coords(
        dark=("energy", [1, 2]), when=np.datetime64("2026-01-01")
    )
    lost = "\n".join(em.export(given, tmp_path / "a.msa").lost)
    assert "coordinate 'dark'" in lost
    assert "coordinate 'when'" in lost
    assert "beyond 2**53" in lost
