"""The table of readers: which one takes a file, told by its name and held against its first bytes.

A reader is a callable (see `Reader`). A new format is one function and one row of `FORMATS`.
"""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from emcube.errors import MissingDependencyError, ReadError
from emcube.io.signals import Signal

__all__ = ["FORMATS", "Format", "Reader", "format_of", "read_signals", "sniff"]


class Reader(Protocol):
    """Reads the signals of a file, lazily, in the order of the file."""

    def __call__(
        self, path: Path, *, name: str | None = None, reader: str | None = None
    ) -> list[Signal]:
        """Read a file; `name` is what the user asks for, `reader` what the user says that the file is."""
        ...


@dataclass(frozen=True)
class Format:
    """A row of the table.

    Attributes
    ----------
    name : str
        What the file is, in words.
    suffixes : tuple of str
        In lower case, with the dot.
    reader : str
        ``module:function`` below ``emcube.io``; imported when the first such file is opened.
    magic : tuple of (int, bytes)
        Offset and first bytes; any of them will do. Empty where the format has no such mark.
    """

    name: str
    suffixes: tuple[str, ...]
    reader: str
    magic: tuple[tuple[int, bytes], ...] = ()

    def load(self) -> Reader:
        """Import the reader."""
        module, _, function = self.reader.partition(":")
        reader: Reader = getattr(importlib.import_module(f"emcube.io.{module}"), function)
        return reader


_HDF5 = ((0, b"\x89HDF\r\n\x1a\n"), (512, b"\x89HDF\r\n\x1a\n"))
_ROSETTA = "rosetta:read_rosetta"

FORMATS: tuple[Format, ...] = (
    Format("Bruker map", (".bcf",), _ROSETTA, ((0, b"AAMVHFSS"),)),
    Format("Bruker spectrum", (".spx",), _ROSETTA, ((0, b"<?xml"), (0, b"<TRTSpectrum"))),
    Format("Velox or EMD file", (".emd",), _ROSETTA, _HDF5),
    Format("HyperSpy file", (".hspy",), _ROSETTA, _HDF5),
    Format("NeXus file", (".nxs", ".nexus"), "nexus:read_nexus", _HDF5),
    Format("HDF5 file", (".h5", ".hdf5", ".hdf", ".he5"), "hdf5:read_any_hdf5", _HDF5),
    Format("HyperSpy Zarr file", (".zspy",), "zspy:read_zspy", ((0, b"PK\x03\x04"),)),
    Format("DigitalMicrograph 3 file", (".dm3",), _ROSETTA, ((0, b"\x00\x00\x00\x03"),)),
    Format("DigitalMicrograph 4 file", (".dm4",), _ROSETTA, ((0, b"\x00\x00\x00\x04"),)),
    Format("JEOL event file", (".pts",), _ROSETTA, ((0, b"\x30\x01\x00\x00"),)),
    Format("FEI series", (".ser",), _ROSETTA, ((0, b"II\x97\x01"),)),
    Format("FEI header", (".emi",), _ROSETTA, ((0, b"JK"),)),
    Format("blockfile", (".blo",), _ROSETTA, ((0, b"IMGBLO"),)),
    Format("Merlin file", (".mib",), _ROSETTA, ((0, b"MQ1,"),)),
    Format("EDAX map", (".spd",), _ROSETTA, ((0, b"MAPSPECTRA_DATA"),)),
    Format("EDAX spectrum", (".spc",), _ROSETTA),
    Format("Phenom file", (".elid",), _ROSETTA, ((0, b"BZh"),)),
    Format("TVIPS stream", (".tvips",), _ROSETTA, ((0, b"\x00\x01\x00\x00"),)),
    Format("MRC file", (".mrc", ".mrcs", ".st", ".ali", ".rec"), _ROSETTA),
    Format("EMSA spectrum", (".msa", ".emsa", ".mas", ".ems"), "msa:read_msa", ((0, b"#FORMAT"),)),
    Format("NumPy array", (".npy",), "arrays:read_npy", ((0, b"\x93NUMPY"),)),
    Format("MATLAB file", (".mat",), "arrays:read_mat", ((0, b"MATLAB 5.0"), (0, b"MATLAB 7"))),
    Format("table of spectra", (".csv",), "arrays:read_csv"),
    Format("tilt angles", (".rawtlt", ".tlt"), "arrays:read_tilts"),
)

#: What is told by its first bytes though emcube does not read it, so that the error can say so.
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"<!DOCTYPE", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)


def format_of(suffix: str) -> Format | None:
    """Return the row for a suffix (with dot), or None."""
    return next((f for f in FORMATS if suffix.lower() in f.suffixes), None)


def sniff(path: Path) -> str:
    """Say what a file is by its first bytes, in words for a message; empty where they tell nothing."""
    head = _head(path)
    if not head:
        return "empty"
    for mark, words in _FOREIGN:
        if head.startswith(mark):
            return words
    for row in FORMATS:
        # Four bytes of a number are too little to name a format by.
        if any(len(mark) >= 6 and head[at : at + len(mark)] == mark for at, mark in row.magic):
            return "an HDF5 file" if row.magic == _HDF5 else f"a {row.name}"
    printable = sum(32 <= byte < 127 or byte in b"\r\n\t" for byte in head)
    return "a text file" if printable == len(head) else ""


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1024)


def read_signals(path: Path, *, name: str | None = None, reader: str | None = None) -> list[Signal]:
    """Read the signals of a file with the reader that its name, or the user, calls for.

    Parameters
    ----------
    path : Path
        An existing file, or a ``.zspy`` directory.
    name : str, optional
        What the user asks for; a path that begins with ``/`` asks for a dataset of an HDF5 file.
    reader : str, optional
        ``"hdf5"``, ``"zspy"``, ``"npy"``, ``"mat"``, ``"csv"`` or a format of RosettaSciIO, as
        ``"HSPY"``; overrides the file's name.

    Raises
    ------
    ReadError
        The file is empty, is not what its name says, was cut short, or is of an unknown kind.
    MissingDependencyError
        The reader needs a package that is not installed.
    """
    if path.is_dir():
        if path.suffix.lower() != ".zspy":
            raise ReadError(
                f"{path}: this is a folder without Zarr metadata, expected a file or a Zarr store",
                hint="name a file within it",
            )
        return _names(_own("zspy")(path, name=name))
    head = _head(path)
    if not head:
        raise ReadError(f"{path}: the file is empty (0 bytes)", hint="fetch or export it again")
    hdf5 = any(head[at : at + len(mark)] == mark for at, mark in _HDF5)
    if hdf5 and reader is None and name is not None and name.startswith("/"):
        return _names(_own("hdf5")(path, name=name))
    if reader is not None:
        return _names(_named_reader(reader)(path, name=name, reader=reader))
    row = format_of(path.suffix)
    if row is None:
        return _names(_unlisted(path, hdf5, name))
    if row.reader == "arrays:read_mat" and hdf5:
        # MATLAB 7.3 files are HDF5 files.
        return _names(_own("hdf5")(path, name=name))
    if row.magic and not any(head[at : at + len(mark)] == mark for at, mark in row.magic):
        what = sniff(path)
        raise ReadError(
            f"{path}: the file is not a {row.name} though its name ends in {path.suffix!r}: it begins with "
            f"{head[:8]!r}{f' and looks like {what}' if what else ''}, expected {row.magic[0][1]!r}",
            hint="fetch or export it again, or give it the suffix of what it is",
        )
    return _names(row.load()(path, name=name))


def _names(signals: list[Signal]) -> list[Signal]:
    from emcube.io.signals import name_signals

    return name_signals(signals)


_OWN: dict[str, Callable[[], Reader]] = {
    key: Format(key, (), where).load
    for key, where in {
        "hdf5": "hdf5:read_hdf5",
        "zspy": "zspy:read_zspy",
        "npy": "arrays:read_npy",
        "mat": "arrays:read_mat",
        "csv": "arrays:read_csv",
        "msa": "msa:read_msa",
        "rawtlt": "arrays:read_tilts",
    }.items()
}


def _own(key: str) -> Reader:
    return _OWN[key]()


def _named_reader(reader: str) -> Reader:
    if reader.lower() in _OWN:
        return _own(reader.lower())
    return Format(reader, (), _ROSETTA).load()


def _unlisted(path: Path, hdf5: bool, name: str | None) -> list[Signal]:
    """Read a file whose suffix has no row: RosettaSciIO knows more formats, else say what it looks like."""
    from emcube.io.rosetta import read_rosetta, suffixes

    if path.suffix.lower() == ".zip":
        raise _zip_error(path)
    if path.suffix[1:].lower() in suffixes() and sniff(path) != "a text file":
        return read_rosetta(path, name=name)
    what = sniff(path)
    looks = f"; it looks like {what}" if what else ""
    if hdf5:
        hint = "open it with reader='hdf5'"
    elif not suffixes():
        raise MissingDependencyError(
            f"{path}: files that end in {path.suffix!r} are of no kind that emcube reads by itself{looks}",
            hint='RosettaSciIO reads many more: pip install "emcube[vendor]"',
        )
    else:
        hint = "name its format with reader=, or load it and label it with emcube.make_cube(...)"
    raise ReadError(
        f"{path}: unknown kind of file: the suffix {path.suffix!r} belongs to no reader, expected one of "
        f"{', '.join(s for f in FORMATS for s in f.suffixes[:1])}{looks}",
        hint=hint,
    )


def _zip_error(path: Path) -> ReadError:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.namelist() if not m.endswith("/")]
    except (zipfile.BadZipFile, OSError) as error:
        return ReadError(
            f"{path}: cannot be read as a zip archive ({path.stat().st_size} bytes): {error}",
            hint="the file is damaged or cut short; fetch it again",
        )
    shown = ", ".join(map(repr, members[:6])) + (
        f" and {len(members) - 6} more" if len(members) > 6 else ""
    )
    return ReadError(
        f"{path}: this is an archive of {len(members)} files ({shown}), expected an instrument "
        "file; members are read "
        "in pieces and at random, which an archive does not allow",
        hint=f"unpack it first: python -m zipfile -e {path.name} .",
    )
