"""Archives: written the same way every time, and read as if an enemy had made them.

The archive is a plain ZIP, without compression (stores are compressed already, and then the bytes do not
hang on a version of zlib), members sorted, times fixed. Its comment holds the SHA-256 of everything before:
a seal by which a change of any byte is found before anything in it is looked at. Whoever packs the files
again with another program makes an archive without a seal, which is read as well: the manifest in it holds
the digest of each file.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from emcube.errors import InputError, PackageError, StoreError
from emcube.feedback.events import working
from emcube.package.names import check_name, check_names, printable

__all__ = ["Archive", "Content", "digest_of", "open_archive", "size_of", "write_archive"]

Content = bytes | Path
"""What becomes a member: bytes, or a file."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that the format knows."""

SEAL = b"emcube package sha256:"
SEAL_BYTES = len(SEAL) + 64

PIECE = 2**20
MAX_MEMBERS = 2_000_000
MAX_RATIO = 200
"""Archives that grow by more when unpacked are bombs; emcube's own do not grow."""

ALWAYS_FINE = 64 * 2**20
"""Archives that hold no more bytes are unpacked whatever their ratio."""

_LOCAL_HEADER = 30
_ENCRYPTED = 0x1 | 0x20 | 0x40
_HINT = "get the package again from where it was published; nothing of it was run"


def digest_of(content: Content) -> str:
    """SHA-256 of bytes or of a file, in hexadecimal digits."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(content: Content) -> int:
    """Bytes of a member."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


# ------------------------------------------------------------------------------------------- writing


def write_archive(
    path: Path, members: Mapping[str, Content], digests: Mapping[str, str], *, overwrite: bool
) -> None:
    """Write an archive: whole or not at all, the same bytes for the same members.

    Parameters
    ----------
    path : Path
        The file.
    members : mapping of str to bytes or Path
        Contents by name; a name that ends with a slash is that of a folder, which has none.
    digests : mapping of str to str
        SHA-256 of members that must not have changed since it was computed.
    overwrite : bool
        Replace a file that is there.

    Raises
    ------
    InputError
        There is a file, or a folder.
    StoreError
        It cannot be written, or a file changed meanwhile.
    """
    if path.is_dir() or (path.exists() and not overwrite):
        raise InputError(
            f"{str(path)!r} exists already, expected the name of a new file",
            hint="choose another name, or replace a file with overwrite=True (--overwrite)",
        )
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w+b") as file:
            n_bytes = sum(map(size_of, members.values()))
            with (
                working("write package", n_bytes=n_bytes) as work,
                zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
            ):
                for name in sorted(members):
                    _write_member(archive, name, members[name], digests.get(name))
                    work.advance(bytes=size_of(members[name]))
            _seal(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"the package {str(path)!r} cannot be written: {error.strerror or error}",
            hint="check permissions and free space",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _write_member(
    archive: zipfile.ZipFile, name: str, content: Content, expected: str | None
) -> None:
    info = zipfile.ZipInfo(name, EPOCH)
    info.create_system = 3  # Unix everywhere, for the same bytes everywhere
    kind = stat.S_IFDIR | 0o755 if name.endswith("/") else stat.S_IFREG | 0o644
    info.external_attr = kind << 16
    info.file_size = size_of(content)
    digest = hashlib.sha256()
    with archive.open(info, "w") as target:
        for piece in _pieces(content):
            digest.update(piece)
            target.write(piece)
    if expected is not None and digest.hexdigest() != expected:
        raise StoreError(
            f"{str(content) if isinstance(content, Path) else name!r} changed while it was packed",
            hint="wait until nothing writes there, then publish again",
        )


def _pieces(content: Content) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def _seal(file: IO[bytes]) -> None:
    """Put the digest of everything so far into the comment at the end."""
    end = file.seek(0, os.SEEK_END)
    # The last two bytes are the length of the comment, zero so far.
    digest = _digest_of_first(file, end - 2)
    file.seek(end - 2)
    file.write(struct.pack("<H", SEAL_BYTES) + SEAL + digest.encode())


def _digest_of_first(file: IO[bytes], n_bytes: int) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while n_bytes > 0 and (piece := file.read(min(PIECE, n_bytes))):
        digest.update(piece)
        n_bytes -= len(piece)
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, eq=False)
class Archive:
    """An archive whose names and sizes are harmless.

    Attributes
    ----------
    path : Path
    files : dict of str to ZipInfo
        Its files by name; folders are left out.
    sealed : bool
        Whether it has a seal, which it then matches.
    """

    path: Path
    files: dict[str, zipfile.ZipInfo]
    _zip: zipfile.ZipFile
    sealed: bool = True

    @property
    def n_bytes(self) -> int:
        """Bytes of all files, as the archive says."""
        return sum(info.file_size for info in self.files.values())

    def read(self, name: str, most: int) -> bytes:
        """Contents of a small file.

        Raises
        ------
        PackageError
            It is not there, is larger than `most` bytes, or damaged.
        """
        info = self.files.get(name)
        if info is None:
            raise PackageError(
                f"the package {str(self.path)!r} misses the file {name!r}",
                hint="check that it is a package of emcube, and get it again",
            )
        if info.file_size > most:
            raise PackageError(
                f"{name!r} in the package {str(self.path)!r} has {info.file_size:,} bytes, expected "
                f"at most {most:,}",
                hint=_HINT,
            )
        return b"".join(self._pieces_of(info))

    def extract(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Write all files into a folder of our own, each compared with its digest.

        Parameters
        ----------
        folder : Path
            New and empty, and nobody else writes there.
        digests : mapping of str to str
            SHA-256 of every file that is written; files without one are left out.

        Raises
        ------
        PackageError
            A file is damaged, or not what the manifest says.
        StoreError
            The disk is full.
        """
        n_bytes = sum(self.files[name].file_size for name in digests)
        free = shutil.disk_usage(folder).free
        if n_bytes > free:
            raise StoreError(
                f"the package {str(self.path)!r} needs {n_bytes:,} bytes at {str(folder)!r}, "
                f"and {free:,} are free",
                hint="make room, or choose another place with --out",
            )
        with working("unpack", n_bytes=n_bytes) as work:
            for name in sorted(digests):
                self._extract_one(folder, name, digests[name])
                work.advance(bytes=self.files[name].file_size)

    def _extract_one(self, folder: Path, name: str, expected: str) -> None:
        target = folder.joinpath(*name.split("/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with target.open("xb") as file:
            for piece in self._pieces_of(self.files[name]):
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != expected:
            raise PackageError(
                f"{printable(name)!r} in the package {str(self.path)!r} was changed: its SHA-256 is "
                f"{digest.hexdigest()}, expected {expected}",
                hint=_HINT,
            )

    def _pieces_of(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        left = info.file_size
        with _readable(self.path, info.filename), self._zip.open(info) as file:
            while piece := file.read(PIECE):
                left -= len(piece)
                yield piece
            if left:
                raise zipfile.BadZipFile(f"{abs(left)} bytes too {'few' if left > 0 else 'many'}")


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an archive after looking at its seal, its names and its sizes.

    Raises
    ------
    PackageError
        It is no ZIP, was changed after it was made, or holds members that are not plain files within it:
        absolute paths, ``..``, links, devices, encrypted ones, two of one name, a bomb. Nothing was unpacked.
    """
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no such file"
        raise PackageError(
            f"{str(path)!r} is {kind}, expected a package, which is one ZIP file",
            hint="check the path; packages come from `emcube publish RESULT CRATE`",
        )
    sealed = _check_seal(path)
    with _readable(path):
        archive = zipfile.ZipFile(path)
    with archive:
        yield Archive(path, _checked(path, archive.infolist()), archive, sealed)


@contextmanager
def _readable(path: Path, name: str | None = None) -> Iterator[None]:
    """Say of what cannot be read which file it is."""
    what = f"the package {str(path)!r}"
    if name is not None:
        what = f"{printable(name)!r} in {what}"
    try:
        yield
    except PackageError:
        raise
    # What zipfile raises for damaged archives is not only BadZipFile.
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        ValueError,
        IndexError,
        NotImplementedError,
        RuntimeError,
        OSError,
    ) as error:
        raise PackageError(
            f"{what} cannot be read: {printable(error) or type(error).__name__}", hint=_HINT
        ) from error


def _check_seal(path: Path) -> bool:
    """Compare the digest in the comment with that of everything before it; False where there is none.

    Raises
    ------
    PackageError
        They differ, or the comment is another one.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - SEAL_BYTES - 2))
        tail = file.read()
        length, comment = tail[:2], tail[2:]
        if comment.startswith(SEAL) and length == struct.pack("<H", SEAL_BYTES):
            found = _digest_of_first(file, size - SEAL_BYTES - 2).encode()
            if found == comment[len(SEAL) :]:
                return True
            raise PackageError(
                f"the package {str(path)!r} was changed after it was made: the SHA-256 of its bytes is "
                f"{found.decode()}, its seal says {printable(comment[len(SEAL) :].decode('latin-1'))}",
                hint=_HINT,
            )
    # Another program's archive, without a comment: a record of 22 bytes at the very end.
    if not re.match(rb"PK\x05\x06.{16}\0\0\Z", tail[-22:], re.DOTALL):
        raise PackageError(
            f"{str(path)!r} is not a whole package: it does not end as a ZIP archive does, with the seal "
            "of emcube or without any comment",
            hint="check the path, and that the file was downloaded whole",
        )
    return False


def _checked(path: Path, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Files of an archive by name, every one looked at."""
    where = f"the package {str(path)!r}"
    if len(infos) > MAX_MEMBERS:
        raise PackageError(
            f"{where} has {len(infos):,} members, expected at most {MAX_MEMBERS:,}", hint=_HINT
        )
    files: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = str(info.orig_filename)
        is_folder = name.endswith("/")
        check_name(name.removesuffix("/"), where)
        _check_kind(info, where, is_folder=is_folder)
        if is_folder:
            continue
        if name in files:
            raise PackageError(f"{where} holds {printable(name)!r} twice", hint=_HINT)
        files[name] = info
    check_names(files, where)
    _check_sizes(path, infos, where)
    return files


def _check_kind(info: zipfile.ZipInfo, where: str, *, is_folder: bool) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    plain = (0, stat.S_IFDIR) if is_folder else (0, stat.S_IFREG)
    what = "a symbolic link" if kind == stat.S_IFLNK else "not a plain file"
    stored = info.compress_type == zipfile.ZIP_STORED
    for wrong, said in (
        (kind not in plain, what),
        (is_folder and info.file_size > 0, "a folder with contents"),
        (bool(info.flag_bits & _ENCRYPTED), "encrypted"),
        (
            info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
            f"packed by method {info.compress_type}",
        ),
        (stored and info.compress_size != info.file_size, "of two sizes"),
    ):
        if wrong:
            raise PackageError(
                f"{where} holds {printable(info.orig_filename)!r}, which is {said}, expected plain files",
                hint=_HINT,
            )


def _check_sizes(path: Path, infos: list[zipfile.ZipInfo], where: str) -> None:
    """Refuse bombs: members that share their bytes, and those that grow beyond measure."""
    total = sum(info.file_size for info in infos)
    size = path.stat().st_size
    if total > max(ALWAYS_FINE, MAX_RATIO * size):
        raise PackageError(
            f"{where} has {size:,} bytes and says that it holds {total:,}: a decompression bomb, expected "
            f"at most {MAX_RATIO} times its size",
            hint=_HINT,
        )
    end = 0
    for info in sorted(infos, key=lambda i: i.header_offset):
        if info.header_offset < end or (end == 0 and info.header_offset != 0):
            raise PackageError(
                f"{where}: {printable(info.orig_filename)!r} begins at byte {info.header_offset:,}, expected "
                f"{end:,} or later, and the first at 0: members overlap, or something lies before them",
                hint=_HINT,
            )
        end = info.header_offset + _LOCAL_HEADER + info.compress_size
    if end > size:
        raise PackageError(f"{where} is cut short: {size:,} bytes of {end:,}", hint=_HINT)
