"""What leads out of a file or folder into others: looked at before anything reads it.

External links, virtual datasets and datasets with external storage name files, and HDF5 opens whatever they
name. A file from elsewhere could so have any file of this machine read into a cube. Master files of detectors
name the files beside them; these are let through, and looked at in turn. In a folder symbolic links do the
same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emcube.errors import ReadError

if TYPE_CHECKING:
    import h5py

__all__ = ["VARIABLE", "check_links", "is_hdf5", "link_outwards"]

#: Set to ``anywhere`` this environment variable lets HDF5 files draw from any file.
VARIABLE = "EMCUBE_HDF5_LINKS"
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Whether HDF5 would take a file: its signature may stand at 0, 512, 1024, 2048, ... bytes."""
    with path.open("rb") as file:
        at = 0
        while True:
            file.seek(at)
            head = file.read(len(_SIGNATURE))
            if len(head) < len(_SIGNATURE):
                return False
            if head == _SIGNATURE:
                return True
            at = 2 * at or 512


def check_links(path: Path) -> None:
    """Refuse an HDF5 file that draws from files outside of its own folder.

    Parameters
    ----------
    path : Path
        Any file; one that is not HDF5 passes.

    Raises
    ------
    ReadError
        An external link or a source of a virtual dataset is absolute, leads out of the folder (symbolic links
        resolved), or is not there, or a dataset has external storage; in this file or in one that it names.

    Notes
    -----
    Looks at every link and at the creation properties of every dataset; reads no values. What is not beside
    the file is refused, too, because HDF5 would look for it in the current folder next. External storage is
    always looked for there.
    """
    if os.environ.get(VARIABLE) == "anywhere":
        return
    seen: set[tuple[Path, Path]] = set()
    waiting = [path]
    while waiting:
        one = waiting.pop()
        # HDF5 looks for names beside a file as it was opened, which may be a link to another folder's.
        key = (one.parent.resolve(), one.resolve())
        if key not in seen:
            seen.add(key)
            waiting += _beside(one)


def _beside(path: Path) -> list[Path]:
    """Files that a file draws from, all of them in its own folder or below."""
    if not is_hdf5(path):
        return []
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return [_allowed(path, what, name) for what, name in _drawn(path, file)]
    except ReadError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ReadError(
            f"{path}: cannot be read as an HDF5 file ({path.stat().st_size} bytes): {error}",
            hint="the file is damaged, cut short or not HDF5; fetch or export it again",
        ) from error


def _drawn(path: Path, file: h5py.File) -> Iterator[tuple[str, str]]:
    """What in a file names another one, in words, and the name."""
    import h5py

    links: list[tuple[bytes, int]] = []
    # Visits each object once, and follows neither soft nor external links.
    file.id.links.visit(lambda name, info: links.append((name, info.type)), info=True)
    for name, kind in links:
        shown = f"'/{name.decode('utf-8', 'replace')}'"
        if kind == h5py.h5l.TYPE_EXTERNAL:
            yield f"the external link {shown}", os.fsdecode(file.id.links.get_val(name)[0])
        elif kind == h5py.h5l.TYPE_HARD:
            node = h5py.h5o.open(file.id, name)
            if isinstance(node, h5py.h5d.DatasetID):
                yield from _sources(path, node, f"the dataset {shown}")


def _sources(path: Path, dataset: h5py.h5d.DatasetID, what: str) -> Iterator[tuple[str, str]]:
    import h5py

    plist = dataset.get_create_plist()
    for i in range(plist.get_external_count()):
        raise _refused(
            path,
            f"{what} (external storage)",
            os.fsdecode(plist.get_external(i)[0]),
            "is no HDF5 file, and is looked for in the current folder",
        )
    if plist.get_layout() == h5py.h5d.VIRTUAL:
        # Of the same few files a dataset may have a hundred thousand pieces.
        names = {plist.get_virtual_filename(i) for i in range(plist.get_virtual_count())}
        for name in sorted(map(os.fsdecode, names)):
            if re.search(r"%\d*b", name):
                raise _refused(
                    path, f"{what} (virtual)", name, "is a pattern for any number of names"
                )
            if name != ".":
                yield f"{what} (virtual)", name


def _allowed(path: Path, what: str, name: str) -> Path:
    """The file that HDF5 would open, where that is in the folder of `path` or below."""
    parts = name.replace("\\", "/").split("/")
    if Path(name).is_absolute() or name.startswith(("/", "\\")) or ":" in parts[0]:
        raise _refused(path, what, name, "is absolute")
    if ".." in parts:
        raise _refused(path, what, name, "leads upwards")
    target = path.parent / name
    if not target.is_file():
        raise _refused(path, what, name, f"is not there (expected {target})")
    if not target.resolve().is_relative_to(path.parent.resolve()):
        raise _refused(path, what, name, f"lies outside of its folder, at {target.resolve()}")
    if not is_hdf5(target):
        raise _refused(path, what, name, "is no HDF5 file")
    return target


def _refused(path: Path, what: str, name: str, why: str) -> ReadError:
    return ReadError(
        f"{path}: {what} draws from the file {name!r}, which {why}; expected an HDF5 file in the same folder "
        "or below",
        hint="lay the files that belong together into one folder; if you know and trust the file, set "
        f"{VARIABLE}=anywhere",
    )


def link_outwards(
    place: str | os.PathLike[str], within: str | os.PathLike[str]
) -> tuple[str, str] | None:
    """Find a symbolic link in a folder that leads out of another one, which holds it.

    Parameters
    ----------
    place : path-like
        A folder; anything else has no links.
    within : path-like
        `place` or a folder above it; may itself be a link, or lie behind one.

    Returns
    -------
    (str, str) or None
        The link and where it leads; or `place` itself, where a link on the way to it leads out.
    """
    root, start = os.path.realpath(within), os.path.realpath(place)
    if not Path(start).is_relative_to(root):
        return os.fspath(place), start
    folders = [start] if Path(start).is_dir() else []
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    target = os.path.realpath(entry.path)
                    if not Path(target).is_relative_to(root):
                        return entry.path, target
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    return None
