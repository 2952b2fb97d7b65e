"""Opening what others wrote, and refusing what is broken."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
import zarr

import emcube as em
from emcube.errors import AmbiguousSignalError, CubeError, IncompleteError, StoreError
from emcube.store import (
    check_links,
    info,
    is_store,
    is_zarr,
    open_cube,
    read_digest,
    verify,
    write_cube,
)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_groups_that_never_saw_emcube(tmp_path, zarr_format) -> None:
    values = np.random.default_rng(0).poisson(1, (30, 4, 5)).astype("u2")
    data = xr.Dataset(
        {
            "map": (("energy_loss", "y", "x"), values, {"_note": "as found"}),
            "image": (("y", "x"), np.ones((4, 5))),
        },
        coords={"energy_loss": ("energy_loss", np.arange(30) * 0.5, {"units": "eV"})},
    )
    data.to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, consolidated=zarr_format == 2)
    cube = open_cube(tmp_path / "a.zarr")
    # Signal dims are told by name and unit, and put last.
    assert cube.dims == ("y", "x", "energy_loss")
    assert cube.attrs["sig_dims"] == ["energy_loss"]
    assert cube.chunks is not None
    np.testing.assert_array_equal(cube.values, values.transpose(1, 2, 0))
    assert open_cube(tmp_path / "a.zarr", "image").dims == ("y", "x")
    assert is_zarr(tmp_path / "a.zarr")
    assert not is_store(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="not a cube store"):
        read_digest(tmp_path / "a.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_single_arrays_with_names(tmp_path, zarr_format) -> None:
    names = {"dimension_names": ["y", "kx"]} if zarr_format == 3 else {}
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(6, 4), dtype="f4", zarr_format=zarr_format, **names
    )
    array[...] = np.arange(24.0).reshape(6, 4)
    if zarr_format == 2:
        array.attrs["_ARRAY_DIMENSIONS"] = ["y", "kx"]
    cube = open_cube(tmp_path / "a.zarr")
    assert cube.dims == ("y", "kx")
    assert cube.attrs["sig_dims"] == ["kx"]
    np.testing.assert_array_equal(cube.values, array[...])


def test_arrays_without_names_say_what_to_do(tmp_path) -> None:
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(6, 4), dtype="f4")
    with pytest.raises(CubeError, match=r"does not name its dims.*make_cube"):
        open_cube(tmp_path / "a.zarr")


def test_two_candidates_are_ambiguous(tmp_path) -> None:
    both = {name: (("y", "energy"), np.ones((2, 3))) for name in ("EDS", "EELS")}
    xr.Dataset(both).to_zarr(tmp_path / "a.zarr", consolidated=False)
    with pytest.raises(AmbiguousSignalError) as caught:
        open_cube(tmp_path / "a.zarr")
    assert caught.value.names == ["EDS", "EELS"]
    assert open_cube(tmp_path / "a.zarr", "EELS").name == "EELS"


def test_nothing_there(tmp_path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        open_cube(tmp_path / "none.zarr")
    with pytest.raises(StoreError, match="is not a Zarr store"):
        open_cube(tmp_path)
    assert not is_store(tmp_path)


@pytest.fixture
def store(tmp_path, small_chunks, make, counts):
    return write_cube(make(counts), tmp_path / "a.zarr")


def chunk_files(store):
    return sorted(p for p in (store / "data" / "c").rglob("*") if p.is_file())


def test_a_missing_chunk_is_never_read_as_zeros(store) -> None:
    lost = chunk_files(store)[3]
    lost.unlink()
    # zarr itself says nothing.
    zarr.open_array(store, path="data", mode="r")[...]
    with pytest.raises(StoreError, match=rf"missing: .*{lost.name} does not exist"):
        open_cube(store).compute()
    found = verify(store)
    assert not found.ok
    assert found.missing == (lost.relative_to(store).as_posix(),)
    with pytest.raises(StoreError, match="is missing"):
        found.check()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_chunk_is_named(store, damage) -> None:
    bad = chunk_files(store)[2]
    raw = bytearray(bad.read_bytes())
    if damage == "flip":
        raw[len(raw) // 2] ^= 1
    bad.write_bytes({"flip": raw, "cut": raw[:-7], "empty": b""}[damage])
    with pytest.raises(StoreError, match="is damaged"):
        open_cube(store).compute()
    assert verify(store).damaged == (bad.relative_to(store).as_posix(),)


def test_deep_verification_finds_a_forged_manifest(store, make, counts) -> None:
    other = counts.copy()
    other[0, 0, 0, 0] += 1
    array = zarr.open_array(store, path="data", mode="r+")
    array[0, 0, 0, 0] = other[0, 0, 0, 0]
    changed = next(name for name in verify(store).damaged)
    manifest = json.loads((store / ".emcube" / "manifest.json").read_text())
    from emcube.store.journal import file_digest

    file = store / changed
    manifest["files"][changed] = [file.stat().st_size, file_digest(file)]
    (store / ".emcube" / "manifest.json").write_text(json.dumps(manifest))
    assert verify(store).ok
    found = verify(store, deep=True)
    assert not found.ok
    with pytest.raises(StoreError, match="its values have the digest"):
        found.check()


def test_a_store_without_its_marker_is_incomplete(store) -> None:
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"]["emcube"]["complete"] = False
    (store / "zarr.json").write_text(json.dumps(document))
    for read in (open_cube, read_digest, info, verify):
        with pytest.raises(IncompleteError, match="completion marker"):
            read(store)


def test_a_store_of_a_newer_format_is_refused(store) -> None:
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"]["emcube"]["format"] = 99
    (store / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match="newer emcube"):
        open_cube(store)


def test_a_result_is_not_a_cube(store) -> None:
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"]["emcube"]["kind"] = "result"
    (store / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match="open_result"):
        open_cube(store)


def test_info_reads_metadata_only(store, counts) -> None:
    for file in chunk_files(store):
        file.unlink()
    found = info(store)
    assert found.shape == counts.shape
    assert found.dims == ("tilt", "y", "x", "energy")
    assert found.axes["tilt"] == {"first": -30.0, "last": 30.0, "units": "deg"}
    assert found.nbytes == counts.nbytes
    json.dumps(found.to_json())


def test_a_node_of_a_result_opens_as_any_zarr_group(tmp_path) -> None:
    counts = np.random.default_rng(0).poisson(4, (6, 5, 30))
    cube = em.make_cube(counts, dims=("y", "x", "energy"))
    recipe = {"emcube": 1, "steps": [{"nmf": {"n_components": 2, "random_state": 0}}]}
    result = em.run(recipe, cube, out=tmp_path / "result")
    loadings = em.open(tmp_path / "result" / "nmf", name="loadings")
    assert loadings.dims == ("y", "x", "component")
    np.testing.assert_array_equal(loadings, result["nmf"]["loadings"])
    with pytest.raises(StoreError, match="is a result of emcube"):
        em.open(tmp_path / "result")


def test_a_store_that_was_replaced_gives_no_values(tmp_path, make, counts) -> None:
    path = write_cube(make(counts), tmp_path / "a.zarr")
    opened = open_cube(path)
    write_cube(make(counts + 1), path, overwrite=True)
    with pytest.raises(StoreError, match="replaced or removed since it was opened"):
        _ = opened.values
    assert (open_cube(path).values == counts + 1).all()


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
@pytest.mark.parametrize("layout", ["dense", "events"])
def test_an_edit_that_drops_consolidated_metadata_is_told(tmp_path, make, counts, layout) -> None:
    path = write_cube(make(counts), tmp_path / "edited.zarr", layout=layout)
    zarr.open_group(path, mode="r+", use_consolidated=False).attrs["note"] = "mine"
    with pytest.raises(StoreError, match="consolidated metadata") as caught:
        open_cube(path)
    assert "zarr.consolidate_metadata" in str(caught.value)
    zarr.consolidate_metadata(path)
    np.testing.assert_array_equal(open_cube(path).values, counts)


def test_links_that_lead_out_of_a_store(tmp_path, make, counts) -> None:
    """Refused in stores of strangers: links within, links to the store and links behind it are fine."""
    store = write_cube(make(counts), tmp_path / "real" / "a.zarr")
    (tmp_path / "secret").mkdir()
    secret = tmp_path / "secret" / "bin"
    secret.write_bytes(b"secret")
    behind = tmp_path / "behind"
    behind.symlink_to(tmp_path / "real")
    (tmp_path / "itself").symlink_to(store)
    (store / "within").symlink_to(store / "zarr.json")
    (store / "around").symlink_to(store)
    for place in (store, behind / "a.zarr", tmp_path / "itself", tmp_path / "nowhere"):
        check_links(place)
    chunk = next(p for p in sorted(store.rglob("c/*")) if p.is_dir())
    for link, target in (
        (store / "zz", secret.parent),
        (chunk / "9", secret),
        (chunk / "9", "/no"),
    ):
        link.symlink_to(target)
        for place in (store, behind / "a.zarr", tmp_path / "itself"):
            with pytest.raises(
                StoreError, match=f"{link.name} leads out of the store, to {target}"
            ):
                check_links(place)
        link.unlink()
    (store / "group").symlink_to(secret.parent)
    with pytest.raises(StoreError, match="leads out of the store"):
        check_links(store / "group", within=store)
