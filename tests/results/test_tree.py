"""The result tree: written whole or opened as incomplete, read by plain xarray."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from emcube import disk
from emcube.errors import IncompleteError, InputError, StoreError
from emcube.results import open_result
from emcube.results.tree import (
    ResultWriter,
    _encoding,
    _write_dataset,
    frame,
    is_result,
    read_root,
)

RECIPE = {"steps": [{"nmf": {"name": "nmf"}}]}


def attributes(run_id: str = "sha256:" + "a" * 64) -> dict[str, Any]:
    return {"run_id": run_id, "recipe": RECIPE, "provenance": {"seeds": {}}}


def dataset() -> xr.Dataset:
    energy = xr.DataArray(np.linspace(1, 2, 5), dims="energy", attrs={"units": "keV"})
    components = xr.DataArray(
        np.full((2, 5), 0.2),
        dims=("component", "energy"),
        coords={"energy": energy},
        attrs={"units": "1 per channel"},
    )
    loadings = frame(("y", "x", "component"), (6, 4, 2), (4, 4, 2), np.float64, {"units": "counts"})
    objective = xr.DataArray(1.5, attrs={"units": "1"})
    path = xr.DataArray([2.0, 1.5], dims="pass", attrs={"units": "1"})
    totals = xr.DataArray([3.0, 2.0], dims="component", attrs={"units": "counts"})
    return xr.Dataset(
        {
            "components": components,
            "loadings": loadings,
            "objective": objective,
            "objective_path": path,
            "component_totals": totals,
        }
    )


def test_a_node_is_laid_out_as_xarray_lays_it_out(tmp_path: Path) -> None:
    made, expected = tmp_path / "made", tmp_path / "expected"
    checked = dataset().assign_coords(y_mm=("y", np.arange(6.0)))
    checked.attrs = {"title": "a map"}
    encoding = {str(n): _encoding(v) for n, v in checked.variables.items()}
    for folder in (made, expected):
        zarr.open_group(str(folder), mode="w", zarr_format=3, attributes={"kept": True})
    _write_dataset(checked, made, "nmf", encoding)
    checked.to_zarr(
        str(expected),
        group="nmf",
        mode="a",
        zarr_format=3,
        consolidated=False,
        compute=False,
        encoding={str(n): _encoding(v) for n, v in checked.variables.items()},
    )
    files = sorted(f.relative_to(expected) for f in expected.rglob("*") if f.is_file())
    assert files == sorted(f.relative_to(made) for f in made.rglob("*") if f.is_file())
    assert Path("nmf/loadings/zarr.json") in files
    assert not (made / "nmf/loadings/c").exists()
    for file in files:
        assert (made / file).read_bytes() == (expected / file).read_bytes(), file


def write(path: Path, *, fill: bool = True, finish: bool = True) -> ResultWriter:
    writer = ResultWriter(path, attributes())
    writer.create()
    node = writer.write_node(
        "nmf", dataset(), verb="nmf", nav=("y", "x"), sig=("energy",), attributes={"n_iter": 3}
    )
    assert node.frames == ("loadings",)
    if fill:
        array = zarr.open_array(str(path), path="nmf/loadings", mode="r+")
        array = array.with_config({"write_empty_chunks": True})
        array[:4] = np.arange(32).reshape(4, 4, 2)
        array[4:] = np.nan
        node.finish({"seconds": 0.5})
    if finish:
        writer.finish({"provenance": {"seeds": {}, "finished": "now"}})
    return writer


def test_plain_xarray_reads_it(tmp_path: Path) -> None:
    write(tmp_path / "result")
    with xr.open_datatree(str(tmp_path / "result"), engine="zarr") as tree:
        assert list(tree.children) == ["nmf"]
        assert not tree.dataset.variables
        assert tree.attrs["emcube"] == {"kind": "result", "format": 1, "complete": True}
        nmf = tree["nmf"]
        assert nmf["loadings"].attrs["units"] == "counts"
        assert nmf["loadings"].dims == ("y", "x", "component")
        assert nmf["components"].energy.attrs["units"] == "keV"
        assert nmf["components"].attrs["long_name"] == "component spectra"
        assert nmf.attrs["n_iter"] == 3
        assert nmf.attrs["seconds"] == 0.5
        np.testing.assert_array_equal(nmf["loadings"][:4].values.ravel(), np.arange(32))


def test_open_result_and_verify(tmp_path: Path) -> None:
    write(tmp_path / "result")
    result = open_result(tmp_path / "result")
    assert result.complete
    assert result.steps == ("nmf",)
    assert list(result) == ["nmf"]
    assert len(result) == 1
    assert result.verb("nmf") == "nmf"
    assert result.provenance["finished"] == "now"
    assert result["nmf"]["loadings"].chunks is not None
    assert result.verify() == {}
    assert "aaaaaaaaaaaa" in repr(result)
    assert "nmf" in result._repr_html_()
    with pytest.raises(KeyError, match="'pca' is not a step"):
        result["pca"]
    array = zarr.open_array(str(tmp_path / "result"), path="nmf/loadings", mode="r+")
    array[0, 0, 0] = 99
    assert list(result.verify()) == ["nmf/loadings"]
    for chunk in (tmp_path / "result/nmf/loadings/c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"cut short")
    assert "cannot be read" in result.verify()["nmf/loadings"]


def test_an_unfinished_result_is_never_taken_for_whole(tmp_path: Path) -> None:
    path = tmp_path / "result"
    write(path, finish=False)
    assert is_result(path)
    with pytest.raises(IncompleteError, match="never finished"):
        open_result(path)
    looked_at = open_result(path, allow_incomplete=True)
    assert not looked_at.complete
    assert "incomplete" in repr(looked_at)
    root = read_root(path)
    assert root is not None
    assert root["emcube"]["complete"] is False


def test_a_node_without_its_marker_is_not_there(tmp_path: Path) -> None:
    writer = write(tmp_path / "result", fill=False, finish=False)
    assert not writer.has_node("nmf")
    with pytest.raises(IncompleteError, match="not finished"):
        writer.node("nmf")


def test_a_lost_chunk_is_noticed_though_zarr_would_fill_it(tmp_path: Path) -> None:
    path = tmp_path / "result"
    write(path)
    chunk = next((path / "nmf" / "loadings" / "c" / "0").rglob("0"))
    shutil.rmtree(chunk) if chunk.is_dir() else chunk.unlink()
    with pytest.raises(IncompleteError, match=r"nmf/loadings .* chunks"):
        open_result(path)


def test_a_node_that_lacks_a_chunk_is_never_marked_as_whole(tmp_path: Path) -> None:
    writer = ResultWriter(tmp_path / "result", attributes())
    writer.create()
    layout: dict[str, Any] = {"verb": "nmf", "nav": ("y", "x"), "sig": ("energy",)}
    node = writer.write_node("nmf", dataset(), **layout)
    node.put("loadings", np.ones((6, 4, 2)))
    (tmp_path / "result/nmf/loadings/c/0/0/0").unlink()
    with pytest.raises(StoreError, match=r"nmf/loadings .* has 1 chunks .* expected 2"):
        node.finish()
    assert not writer.has_node("nmf")
    again = writer.write_node("nmf", dataset(), **layout)
    assert again.attempt != node.attempt
    again.put("loadings", np.full((6, 4, 2), np.nan))
    again.finish()
    assert writer.has_node("nmf")


def test_the_same_run_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "result"
    write(path, finish=False)
    again = ResultWriter(path, attributes())
    again.create()
    assert again.has_node("nmf")
    again.finish({})
    assert open_result(path).steps == ("nmf",)


def test_another_run_is_refused_without_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "result"
    write(path)
    other = ResultWriter(path, attributes("sha256:" + "b" * 64))
    with pytest.raises(InputError, match=r"another run \(run aaaaaaaaaaaa, .* run bbbbbbbbbbbb"):
        other.create()
    assert open_result(path).steps == ("nmf",)
    other.create(overwrite=True)
    assert not other.has_node("nmf")


@pytest.mark.parametrize("complete", [True, False])
def test_what_somebody_put_beside_the_nodes_is_not_lost_with_them(
    tmp_path: Path, complete: bool
) -> None:
    path = tmp_path / "result"
    write(path)
    if not complete:
        root = json.loads((path / "zarr.json").read_text())
        root["attributes"]["emcube"]["complete"] = False
        (path / "zarr.json").write_text(json.dumps(root))
    (path / "notes.txt").write_text("keep")
    (path / "figures").mkdir()
    (path / ".DS_Store").write_text("")
    other = ResultWriter(path, attributes("sha256:" + "b" * 64))
    with pytest.raises(InputError, match=r"lost with it: figures, notes\.txt"):
        other.create(overwrite=True)
    assert (path / "notes.txt").read_text() == "keep"
    assert read_root(path)["run_id"] == attributes()["run_id"]  # type: ignore[index]
    (path / "notes.txt").unlink()
    (path / "figures").rmdir()
    other.create(overwrite=True)


def test_what_is_no_result_is_never_touched(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("keep")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not a result of emcube"):
            ResultWriter(folder, attributes()).create(overwrite=overwrite)
    assert (folder / "notes.txt").read_text() == "keep"
    file = tmp_path / "file"
    file.write_text("keep")
    with pytest.raises(InputError, match="not a result"):
        ResultWriter(file, attributes()).create(overwrite=True)


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ResultWriter(tmp_path / "empty", attributes()).create()
    assert is_result(tmp_path / "empty")


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        ResultWriter(tmp_path / "file" / "under", attributes()).create()


def test_what_open_result_refuses(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        open_result(tmp_path / "missing")
    with pytest.raises(StoreError, match="no result at"):
        open_result(tmp_path)
    zarr.open_group(str(tmp_path / "other"), mode="w", zarr_format=3)
    with pytest.raises(StoreError, match="no result at"):
        open_result(tmp_path / "other")
    path = tmp_path / "newer"
    write(path)
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["emcube"]["format"] = 99
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match="format 99"):
        open_result(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        open_result(path)


DAMAGE: list[tuple[str, Any]] = [
    ("complete", None),
    ("complete", "no"),
    ("complete", 1),
    ("format", "new"),
    ("recipe", None),
    ("recipe", {"steps": [3]}),
    ("run_id", None),
    ("provenance", []),
]


@pytest.mark.parametrize(("key", "value"), DAMAGE)
def test_a_root_that_was_changed_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "result"
    write(path)
    document = json.loads((path / "zarr.json").read_text())
    root = document["attributes"]
    (root["emcube"] if key in root["emcube"] else root)[key] = value
    (path / "zarr.json").write_text(json.dumps(document))
    writer = ResultWriter(path, attributes("sha256:" + "b" * 64))
    for attempt in (lambda: open_result(path), lambda: writer.create(overwrite=True)):
        with pytest.raises(StoreError, match=f"is damaged: its '{key}' is"):
            attempt()
    assert (path / "nmf").is_dir()


def test_a_root_without_its_marker_of_completion_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "result"
    write(path)
    document = json.loads((path / "zarr.json").read_text())
    del document["attributes"]["emcube"]["complete"]
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match="'complete' is None, expected true or false"):
        open_result(path)


def test_a_process_that_was_killed_between_its_last_renames(tmp_path: Path) -> None:
    path, b = tmp_path / "result", "sha256:" + "b" * 64
    new, old = tmp_path / ".result.emcube-new", tmp_path / ".result.emcube-old"
    write(path)
    other = ResultWriter(path, attributes(b))
    other.create(overwrite=True)
    path.rename(old)
    # What was to come is not complete: the old one goes back.
    ResultWriter(path, attributes(b)).settle()
    assert open_result(path).run_id == attributes()["run_id"]
    assert not old.exists()
    zarr.open_group(str(new), mode="r+").update_attributes(
        {"emcube": {"kind": "result", "format": 1, "complete": True}}
    )
    path.rename(old)
    ResultWriter(path, attributes(b)).settle()
    root = read_root(path)
    assert root is not None
    assert root["run_id"] == b
    assert [p.name for p in tmp_path.iterdir()] == ["result"]
    # Killed after both: only the old one is left.
    shutil.copytree(path, old)
    assert not other.is_settled
    ResultWriter(path, attributes(b)).settle()
    assert other.is_settled


def test_a_lock_whose_file_was_removed_meanwhile_locks_the_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lock"
    lock_file = disk.try_lock

    def late(fd: int) -> None:
        # The holder of before lets go and removes the file after it was opened here.
        monkeypatch.setattr(disk, "try_lock", lock_file)
        file.unlink()
        lock_file(fd)

    monkeypatch.setattr(disk, "try_lock", late)
    with disk.exclusive(file, "it"):
        assert file.exists()
        with pytest.raises(StoreError, match="another process"), disk.exclusive(file, "it"):
            pass


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    first = ResultWriter(tmp_path / "result", attributes())
    second = ResultWriter(tmp_path / "result", attributes())
    with first.lock(), pytest.raises(StoreError, match="another process is writing"), second.lock():
        pass
    assert not list(tmp_path.glob(".*"))
