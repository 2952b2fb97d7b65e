"""Packages that are broken, changed or made to do harm: each is refused, nothing runs, nothing is written."""

from __future__ import annotations

import copy
import json
import os
import pickle
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec

from emcube.cli import main
from emcube.errors import InputError, PackageError
from emcube.package import reproduce
from emcube.package.archive import SEAL_BYTES
from emcube.package.names import DESCRIPTION, MANIFEST, RECIPE
from emcube.package.reproducing import unpacked
from emcube.package.stores import check_store
from emcube.store import write_cube
from tests.package.conftest import Lab, edit_json, members_of, pack, pack_plainly, simulated

Members = dict[str, bytes]
PCA = "result/pca/zarr.json"
ROOT = "result/zarr.json"
VALUES = "result/pca/explained_variance"


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.place,)


def test_the_payload_would_do_something(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "canary")))
    assert (tmp_path / "canary").is_dir()


# ------------------------------------------------------------------------- changed files, packed rightly


def description(**changes: Any) -> Callable[[Members, Path], None]:
    def edit(members: Members, canary: Path) -> None:
        edit_json(members, DESCRIPTION, lambda plain: plain.update(changes))

    return edit


def described_input(**changes: Any) -> Callable[[Members, Path], None]:
    def edit(members: Members, canary: Path) -> None:
        edit_json(members, DESCRIPTION, lambda plain: plain["input"].update(changes))

    return edit


def text_of(name: str, text: str) -> Callable[[Members, Path], None]:
    def edit(members: Members, canary: Path) -> None:
        members[name] = text.replace("CANARY", str(canary)).encode()

    return edit


def recipe_with(line: str) -> Callable[[Members, Path], None]:
    def edit(members: Members, canary: Path) -> None:
        members[RECIPE] += line.replace("CANARY", str(canary)).encode() + b"\n"

    return edit


def without(name: str) -> Callable[[Members, Path], None]:
    def edit(members: Members, canary: Path) -> None:
        for one in [m for m in members if m == name or m.startswith(f"{name}/")]:
            del members[one]

    return edit


def document(
    name: str, edit_one: Callable[[dict[str, Any]], None]
) -> Callable[[Members, Path], None]:
    def edit(members: Members, canary: Path) -> None:
        edit_json(members, name, edit_one)

    return edit


def array(change: Callable[[dict[str, Any]], None]) -> Callable[[Members, Path], None]:
    return document(f"{VALUES}/zarr.json", change)


def pickled_array(members: Members, canary: Path) -> None:
    """An array of the older format whose filter unpickles."""
    members["result/pca/evil/.zarray"] = json.dumps(
        {
            "zarr_format": 2,
            "shape": [1],
            "chunks": [1],
            "dtype": "|O",
            "fill_value": None,
            "order": "C",
            "filters": [{"id": "pickle", "protocol": 5}],
            "compressor": None,
        }
    ).encode()
    members["result/pca/evil/0"] = pickle.dumps(Payload(canary))


def pickled_chunk(members: Members, canary: Path) -> None:
    """An array that names a codec which unpickles."""
    array(lambda d: d.update(codecs=[{"name": "numcodecs.pickle", "configuration": {}}]))(
        members, canary
    )
    members[f"{VALUES}/c/0"] = pickle.dumps(Payload(canary))


def hidden_codec(members: Members, canary: Path) -> None:
    """Only the consolidated copy, which is what xarray reads, names another codec."""

    def edit(plain: dict[str, Any]) -> None:
        inner = plain["consolidated_metadata"]["metadata"]["pca/explained_variance"]
        inner["codecs"] = [{"name": "numcodecs.pickle"}]

    edit_json(members, ROOT, edit)


def nested_codec(members: Members, canary: Path) -> None:
    """A copy within a copy of the metadata names it."""

    def edit(plain: dict[str, Any]) -> None:
        metadata = plain["consolidated_metadata"]["metadata"]
        evil = {**metadata["pca/explained_variance"], "codecs": [{"name": "numcodecs.pickle"}]}
        metadata["pca"]["consolidated_metadata"] = {
            "kind": "inline",
            "must_understand": False,
            "metadata": {"explained_variance": evil},
        }

    edit_json(members, ROOT, edit)


def hidden_place(members: Members, canary: Path) -> None:
    def edit(plain: dict[str, Any]) -> None:
        metadata = plain["consolidated_metadata"]["metadata"]
        metadata["../../../etc"] = metadata["pca/explained_variance"]

    edit_json(members, ROOT, edit)


def inner_codec(members: Members, canary: Path) -> None:
    """The codec stands within a shard."""

    def edit(plain: dict[str, Any]) -> None:
        plain["codecs"] = [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [1],
                    "codecs": [{"name": "bytes"}, {"name": "os.system"}],
                    "index_codecs": [{"name": "bytes"}],
                },
            }
        ]

    array(edit)(members, canary)


def flipped(place: int) -> Callable[[Members, Path], None]:
    """Change one byte of a chunk; manifest and seal are made anew."""

    def edit(members: Members, canary: Path) -> None:
        data = bytearray(members[f"{VALUES}/c/0"])
        data[place] ^= 1
        members[f"{VALUES}/c/0"] = bytes(data)

    return edit


def growing_chunk(members: Members, canary: Path) -> None:
    """A frame of Zstandard that says it holds 2**40 bytes."""
    frame = b"\x28\xb5\x2f\xfd" + bytes([0b11100000]) + (2**40).to_bytes(8, "little")
    members[f"{VALUES}/c/0"] = frame + b"\x01\x00\x00" + bytes(4)


def no_digests(plain: dict[str, Any]) -> None:
    plain["attributes"]["emcube"]["digests"] = {}


def in_consolidated(node: str, change: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
    """Change a node's document and the copy of it that the root holds."""

    def edit(members: Members, canary: Path) -> None:
        edit_json(members, f"result/{node}/zarr.json", change)
        edit_json(members, ROOT, lambda p: change(p["consolidated_metadata"]["metadata"][node]))

    return edit


def deep(n: int) -> str:
    return "[" * n + "]" * n


LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]"


def bogus(names: list[str], data: bytes = b"x") -> Callable[[Members, Path], None]:
    """An array that declares gigabytes, and as many files as it would have chunks."""

    def change(plain: dict[str, Any]) -> None:
        plain.update(shape=[9 * 90_000_000])
        plain["chunk_grid"]["configuration"].update(chunk_shape=[90_000_000])

    def edit(members: Members, canary: Path) -> None:
        in_consolidated("pca/explained_variance", change)(members, canary)
        del members[f"{VALUES}/c/0"]
        for name in names:
            members[f"{VALUES}/{name}"] = data

    return edit


def sharded(data: bytes) -> Callable[[Members, Path], None]:
    """An array of one shard, which holds this."""

    def change(plain: dict[str, Any]) -> None:
        plain.update(shape=[90_000_000])
        plain["chunk_grid"]["configuration"].update(chunk_shape=[90_000_000])
        inner = {
            "chunk_shape": [45_000_000],
            "codecs": [{"name": "bytes"}],
            "index_codecs": [{"name": "bytes"}],
        }
        plain["codecs"] = [{"name": "sharding_indexed", "configuration": inner}]

    def edit(members: Members, canary: Path) -> None:
        in_consolidated("pca/explained_variance", change)(members, canary)
        members[f"{VALUES}/c/0"] = data

    return edit


def two_units(members: Members, canary: Path) -> None:
    """The document of an axis says another unit than the copy of it that most readers see."""
    edit_json(members, "result/pca/energy/zarr.json", lambda d: d["attributes"].update(units="eV"))


CHANGED: dict[str, tuple[Callable[[Members, Path], None], str]] = {
    "a newer version": (
        description(emcube_package=2, created_with="emcube 9\x1b[2J"),
        "has the layout 2 .*reads up to 1; install a newer emcube",
    ),
    "no version": (description(emcube_package=None), "does not say which version"),
    "a version that is text": (description(emcube_package="1"), "does not say which version"),
    "a key of its own": (description(command="rm -rf /"), "'command': Extra inputs"),
    "a run that is none": (description(run_id="sha256:../../x"), "'run_id'"),
    "another run": (description(run_id="sha256:" + "0" * 64), "contradicts itself: the identity"),
    "another digest": (
        described_input(digest="sha256:" + "0" * 64),
        "contradicts itself: the digest",
    ),
    "data elsewhere": (described_input(included="../../etc/passwd"), "'input.included'"),
    "data at an absolute path": (described_input(included="/etc/passwd"), "'input.included'"),
    "an address of this machine": (
        described_input(addresses=[{"url": "file:///etc/passwd", "kind": "file"}]),
        "'input.addresses.0.url'",
    ),
    "a chain of protocols": (
        described_input(addresses=[{"url": "simplecache::file:///etc", "kind": "store"}]),
        "'input.addresses.0.url'",
    ),
    "a description that is no JSON": (text_of(DESCRIPTION, "{,}"), "is not valid JSON"),
    "a description of lists": (text_of(DESCRIPTION, "[]"), "does not say which version"),
    "NaN": (text_of(DESCRIPTION, '{"emcube_package": NaN}'), "NaN is not a value of JSON"),
    "two keys": (
        text_of(DESCRIPTION, '{"emcube_package": 1, "emcube_package": 1}'),
        "a key stands twice",
    ),
    "a huge description": (text_of(DESCRIPTION, "0" * (2**20 + 1)), "expected at most 1,048,576"),
    "a huge document": (
        text_of(f"{VALUES}/zarr.json", "0" * (2**24 + 1)),
        "expected at most 16,777",
    ),
    "a number of a million digits": (
        text_of(DESCRIPTION, '{"emcube_package": ' + "1" * 1_000_000 + "}"),
        "is not valid JSON",
    ),
    "deep JSON": (text_of(DESCRIPTION, deep(200)), "nested too deeply"),
    "very deep JSON": (text_of(DESCRIPTION, deep(200_000)), "nested too deeply"),
    "a recipe that runs": (
        recipe_with("x: !!python/object/apply:os.mkdir ['CANARY']"),
        "recipe.yaml of .* is not valid",
    ),
    "a recipe with a tag": (
        recipe_with("x: !!python/name:os.system ''"),
        "recipe.yaml of .* is not valid: .*tag",
    ),
    "a recipe with an input": (recipe_with("input: {path: /etc/passwd}"), "an input or an output"),
    "a recipe with an output": (recipe_with("output: CANARY"), "an input or an output"),
    "a recipe of laughs": (text_of(RECIPE, LAUGHS), "is not valid: .*alias"),
    "a recipe of another verb": (
        text_of(RECIPE, "emcube: 1\nsteps: [{os.system: {command: mkdir CANARY}}]"),
        "is not valid",
    ),
    "another recipe": (
        text_of(RECIPE, "emcube: 1\nsteps: [{pca: {n_components: 4}}]"),
        r"contradicts itself: the recipe.*: steps\[0\]\.pca\.n_components is 3 in its result and 4 beside",
    ),
    "no recipe": (without(RECIPE), "has no recipe.yaml"),
    "no description": (without(DESCRIPTION), f"misses the file '{DESCRIPTION}'"),
    "no result": (without("result"), "has no zarr.json"),
    "an unfinished result": (
        document(ROOT, lambda d: d["attributes"]["emcube"].update(complete=False)),
        "was never finished",
    ),
    "a result of a newer version": (
        document(ROOT, lambda d: d["attributes"]["emcube"].update(format=99)),
        "has format 99",
    ),
    "a result that is a cube": (
        document(ROOT, lambda d: d["attributes"]["emcube"].update(kind="cube")),
        "there is no result",
    ),
    "a result without provenance": (
        document(ROOT, lambda d: d["attributes"].update(provenance={})),
        "has no 'input'",
    ),
    "a result of a group without attributes": (
        document(ROOT, lambda d: d.pop("attributes")),
        "there is no result",
    ),
    "a node without digests": (in_consolidated("pca", no_digests), "lacks the digests"),
    "a value that was changed": (flipped(-6), "result of .* is damaged: pca/explained_variance"),
    "a chunk of another kind": (flipped(0), "'0' does not say how much it unpacks to"),
    "a chunk that is gone": (without(f"{VALUES}/c"), "has 0 chunks, 1 were written"),
    "a pickle of the older format": (pickled_array, "metadata of Zarr 2"),
    "a pickle as a codec": (pickled_chunk, "names the codec 'numcodecs.pickle'"),
    "a codec in the copy of the metadata": (hidden_codec, "names the codec 'numcodecs.pickle'"),
    "a codec in a copy of the copy": (nested_codec, "names the codec 'numcodecs.pickle'"),
    "a codec in a shard": (inner_codec, "names the codec 'os.system'"),
    "a place in the copy of the metadata": (hidden_place, r"'\.\.' is not the name"),
    "a data type of objects": (array(lambda d: d.update(data_type="object")), "data type 'object'"),
    "a storage transformer": (
        array(lambda d: d.update(storage_transformers=[{"name": "x"}])),
        "has storage transformers",
    ),
    "an array of any size": (array(lambda d: d.update(shape=[10**15])), "as its shape"),
    "a chunk of any size": (
        array(lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[10**12])),
        "less than 2 GiB",
    ),
    "a chunk that grows": (growing_chunk, "unpacks to 1099511627776 bytes, expected at most 24"),
    "an array of negative length": (array(lambda d: d.update(shape=[-1])), "a list of lengths"),
    "files that are no chunks": (bogus([f"bogus{i}" for i in range(9)]), "has the file 'bogus0'"),
    "files beyond the grid": (bogus(["c/9"]), "has the file 'c/9'"),
    "a chunk named twice": (bogus(["c/0", "c/00"]), "has the file 'c/00'|the chunk '0'"),
    "chunks of one byte": (bogus([f"c/{i}" for i in range(9)]), "the chunk '0' "),
    "another way of naming chunks": (
        array(lambda d: d.update(chunk_key_encoding={"name": "fanout"})),
        "names its chunks by",
    ),
    "a shard of one byte": (sharded(b"x"), "has 1 bytes, expected an index of 32"),
    "a shard of nothing": (sharded(b"\xff" * 32), "lack 720,000,000 bytes"),
    "a shard of little": (
        sharded((32).to_bytes(8, "little") + (1).to_bytes(8, "little") + b"\xff" * 16 + b"x"),
        "names a chunk beyond its end",
    ),
    "a copy that says something else": (two_units, "a copy of 'pca/energy' that says something"),
    "an array that is no object": (text_of(f"{VALUES}/zarr.json", "3"), "is no object"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_package_of_other_files_is_refused(name: str, quick: Lab, tmp_path: Path) -> None:
    edit, message = CHANGED[name]
    canary = tmp_path / "canary"
    members = members_of(quick.crate)
    edit(members, canary)
    crate = pack(tmp_path / "crate.zip", members)
    with pytest.raises(PackageError, match=message) as caught:
        reproduce(crate)
    assert caught.value.hint
    assert str(caught.value).isprintable()
    assert [p.name for p in tmp_path.iterdir()] == ["crate.zip"]


# ----------------------------------------------------------------------------------- strange archives


def named(name: str) -> Callable[[Path, Members], None]:
    """An archive with one more file, of this name."""

    def build(path: Path, members: Members) -> None:
        # zipfile would mend the name: it is put into the directory afterwards.
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        with zipfile.ZipFile(path, "w") as archive:
            for one, data in members.items():
                archive.writestr(one, data)
            archive.writestr(info, b"evil")

    return build


def special(mode: int, data: bytes) -> Callable[[Path, Members], None]:
    """An archive with one more member that is no plain file."""

    def build(path: Path, members: Members) -> None:
        info = zipfile.ZipInfo("result/special")
        info.create_system = 3
        info.external_attr = (mode | 0o777) << 16
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(info, data)
            for one, contents in members.items():
                archive.writestr(one, contents)
            archive.writestr("result/special/evil", b"evil")

    return build


def twice(path: Path, members: Members) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for one, data in members.items():
            archive.writestr(one, data)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(RECIPE, b"emcube: 1")


def encrypted(path: Path, members: Members) -> None:
    pack_plainly(path, members)
    data = bytearray(path.read_bytes())
    # Bit 0 of the flags of the first member: in its header, and in the directory.
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def bzipped(path: Path, members: Members) -> None:
    pack_plainly(path, members, compression=zipfile.ZIP_BZIP2)


def bomb(path: Path, members: Members) -> None:
    zeros = {"result/zeros": bytes(80 * 2**20)}
    pack_plainly(path, {**members, **zeros}, compression=zipfile.ZIP_DEFLATED, compresslevel=9)


def overlapping(path: Path, members: Members) -> None:
    """Many names for the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("result/zeros", bytes(2**20))
        for number in range(20):
            info = copy.copy(archive.filelist[0])
            info.filename = f"result/zeros{number}"
            archive.filelist.append(info)


def two_names(path: Path, members: Members) -> None:
    """The header of a member calls it otherwise than the directory does."""
    pack_plainly(path, members)
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo(RECIPE).header_offset + 30
    data = bytearray(path.read_bytes())
    data[at : at + len(RECIPE)] = b"X" * len(RECIPE)
    path.write_bytes(data)


def something_before(path: Path, members: Members) -> None:
    pack_plainly(path, members)
    path.write_bytes(b"#!/bin/sh\necho evil\n" + path.read_bytes())


def commented(path: Path, members: Members) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for one, data in members.items():
            archive.writestr(one, data)
        archive.comment = b"emcube package sha256:" + b"0" * 63


def wrong_size(path: Path, members: Members) -> None:
    """The directory says that a stored file is larger than its bytes."""
    pack_plainly(path, members)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (2**30).to_bytes(4, "little")
    path.write_bytes(data)


def manifest(change: Callable[[str], str]) -> Callable[[Path, Members], None]:
    def build(path: Path, members: Members) -> None:
        text = change(members[MANIFEST].decode())
        pack_plainly(path, {**members, MANIFEST: text.encode()})

    return build


def first_line(text: str) -> str:
    return text.split("\n")[0] + "\n"


def other_case(path: Path, members: Members) -> None:
    pack_plainly(path, {**members, "Recipe.YAML": b"emcube: 1"})


STRANGE: dict[str, tuple[Callable[[Path, Members], None], str]] = {
    "no archive": (lambda p, m: p.write_bytes(b"not a zip" * 100) and None, "not a whole package"),
    "an empty file": (lambda p, m: p.write_bytes(b"") and None, "not a whole package"),
    "an empty archive": (lambda p, m: pack_plainly(p, {}) and None, "misses the file"),
    "an absolute path": (named("/tmp/evil"), "an absolute path"),
    "a path upwards": (named("../evil"), r"'\.\.' is not the name"),
    "a path down and upwards": (named("result/../../evil"), r"'\.\.' is not the name"),
    "a dot": (named("result/./evil"), r"'\.' is not the name"),
    "two slashes": (named("result//evil"), "'' is not the name"),
    "a path of another system": (named("..\\evil"), "a backslash"),
    "a drive": (named("C:/evil"), "a path on a drive"),
    "a stream": (named("recipe.yaml:evil"), "a colon"),
    "a control character": (named("result/\x1b[2Jevil"), "a control character"),
    "an overlong name": (named("a" * 300), "is not the name"),
    "an overlong path": (named("/".join(["a" * 100] * 20)[1:]), "an overlong path"),
    "a name that the manifest lacks": (named("result/more"), "that its manifest does not name"),
    "a symbolic link": (special(stat.S_IFLNK, b"/etc/passwd"), "a symbolic link"),
    "a link that leads out": (special(stat.S_IFLNK, b"../../.."), "a symbolic link"),
    "a device": (special(stat.S_IFCHR, b""), "not a plain file"),
    "a pipe": (special(stat.S_IFIFO, b""), "not a plain file"),
    "a file that is a folder": (special(stat.S_IFREG, b""), "as a file and as a folder"),
    "a name twice": (twice, "twice"),
    "names that differ by case": (other_case, "one file where letters"),
    "encryption": (encrypted, "encrypted"),
    "another way of packing": (bzipped, "packed by method 12"),
    "a bomb": (bomb, "a decompression bomb"),
    "members that overlap": (overlapping, "members overlap|decompression bomb"),
    "a member of two names": (two_names, "cannot be read: File name in directory"),
    "a script before the archive": (something_before, "something lies before them"),
    "a comment like a seal": (commented, "not a whole package"),
    "a member of two sizes": (wrong_size, "of two sizes"),
    "an empty manifest": (manifest(lambda t: ""), "that its manifest does not name"),
    "a manifest that climbs": (
        manifest(lambda t: t + "0" * 64 + "  ../evil\n"),
        r"'\.\.' is not the name",
    ),
    "a manifest out of order": (
        manifest(lambda t: t.removeprefix(first_line(t)) + first_line(t)),
        "each file once, in the order",
    ),
    "a manifest with a line twice": (manifest(lambda t: first_line(t) + t), "each file once"),
    "a manifest without its last line feed": (manifest(lambda t: t[:-1]), "each file once"),
    "a manifest with a remark": (manifest(lambda t: "# fine\n" + t), "line 1: '# fine'"),
    "a manifest of a file that is missing": (
        manifest(lambda t: t + "0" * 64 + "  zzz\n"),
        "misses 1 of .* files, the first is 'zzz'",
    ),
    "a manifest of other digests": (
        manifest(lambda t: "".join(f"{'0' * 64}{line[64:]}\n" for line in t.splitlines())),
        "was changed: its SHA-256 is",
    ),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_archive_is_refused(name: str, quick: Lab, tmp_path: Path) -> None:
    build, message = STRANGE[name]
    crate = tmp_path / "crate.zip"
    build(crate, members_of(quick.crate))
    with pytest.raises(PackageError, match=message) as caught:
        reproduce(crate)
    assert caught.value.hint
    assert str(caught.value).isprintable()
    assert [p.name for p in tmp_path.iterdir()] == ["crate.zip"]
    assert not Path("/tmp/evil").exists()


def test_there_are_more_than_fifty_of_them() -> None:
    assert len(CHANGED) + len(STRANGE) > 50


def test_the_command_line_refuses_with_one_line(
    quick: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crate = tmp_path / "crate.zip"
    named("../evil")(crate, members_of(quick.crate))
    assert main(["reproduce", str(crate)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "expected a plain path within it" in said or "is not the name" in said


# --------------------------------------------------------------------------------------- single bytes


def test_any_changed_byte_is_found(quick: Lab, tmp_path: Path) -> None:
    whole = quick.crate.read_bytes()
    end = len(whole) - SEAL_BYTES - 40
    positions = [*range(0, end, max(1, end // 150)), *range(end, len(whole))]
    crate = tmp_path / "crate.zip"
    for at in positions:
        data = bytearray(whole)
        data[at] ^= 0x20
        crate.write_bytes(data)
        with pytest.raises(PackageError), unpacked(crate, tmp_path):
            pass
    for cut in (1, 2, 30, 200, len(whole) // 2):
        crate.write_bytes(whole[:-cut])
        with pytest.raises(PackageError), unpacked(crate, tmp_path):
            pass
    crate.write_bytes(whole + b"\0")
    with pytest.raises(PackageError), unpacked(crate, tmp_path):
        pass


def test_a_package_that_was_packed_again_is_read_and_checked(quick: Lab, tmp_path: Path) -> None:
    members = members_of(quick.crate)
    crate = pack_plainly(tmp_path / "crate.zip", members, compression=zipfile.ZIP_DEFLATED)
    with unpacked(crate, tmp_path) as package:
        assert package.result.run_id == quick.result.run_id
    # Without a seal some bytes may change (times of files), but never what is in them.
    whole = crate.read_bytes()
    refused = 0
    for at in range(0, len(whole), max(1, len(whole) // 40)):
        data = bytearray(whole)
        data[at] ^= 0x20
        crate.write_bytes(data)
        try:
            with unpacked(crate, tmp_path) as package:
                for name, contents in members.items():
                    if name != MANIFEST:
                        assert package.root.joinpath(*name.split("/")).read_bytes() == contents, at
        except PackageError:
            refused += 1
    assert refused > 20


# ---------------------------------------------------------------------------------------- other data


def test_other_data_in_the_package_are_refused(quick: Lab, tmp_path: Path) -> None:
    other = write_cube(simulated(1), tmp_path / "other" / "cube.zarr")
    members = {k: v for k, v in members_of(quick.crate).items() if not k.startswith("input/")}
    for path in other.rglob("*"):
        if path.is_file() and path.name != "lock":
            members[f"input/cube.zarr/{path.relative_to(other).as_posix()}"] = path.read_bytes()
    crate = pack(tmp_path / "crate.zip", members)
    with pytest.raises(InputError, match="is not the input of this run"):
        reproduce(crate)
    # The store lies about itself.
    root = "input/cube.zarr/zarr.json"
    edit_json(
        members,
        root,
        lambda d: d["attributes"]["emcube"].update(
            digest=quick.result.provenance["input"]["digest"]
        ),
    )
    crate = pack(tmp_path / "crate.zip", members)
    with pytest.raises(InputError, match="is not the input of this run"):
        reproduce(crate)
    assert {p.name for p in tmp_path.iterdir()} == {"crate.zip", "other"}


@pytest.mark.parametrize("encoding", ["default", "v2"])
@pytest.mark.parametrize("shape", [(), (5,), (7, 5)])
@pytest.mark.parametrize("shards", [True, False])
def test_plain_arrays_are_let_through(
    encoding: Any, shape: tuple[int, ...], shards: bool, tmp_path: Path
) -> None:
    root = zarr.create_group(tmp_path)
    array = root.create_array(
        "a",
        shape=shape,
        chunks=tuple(2 for _ in shape),
        shards=tuple(4 for _ in shape) if shape and shards else None,
        dtype="float32",
        chunk_key_encoding={"name": encoding, "separator": "/"},
        config={"write_empty_chunks": True},
        compressors=BloscCodec() if shards else "auto",
    )
    array[...] = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    check_store(tmp_path, "it")


def test_a_folder_and_a_missing_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="is a folder, expected a package"):
        reproduce(tmp_path)
    with pytest.raises(PackageError, match="no such file"):
        reproduce(tmp_path / "none.zip")


def test_a_link_out_of_a_store_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    (store / "c").mkdir(parents=True)
    (store / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    check_store(store, "it")
    (tmp_path / "secret").write_bytes(b"secret")
    (store / "c" / "0").symlink_to(tmp_path / "secret")
    with pytest.raises(PackageError, match=r"it: .* leads out of the"):
        check_store(store, "it")
