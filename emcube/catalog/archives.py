"""Files that repositories keep in zip archives: unpacked into the cache, and never beside it.

An archive comes from a stranger. Its table of contents is checked as a whole before the first byte is
written: names that lead out of the folder, links, locked or doubled members, and more bytes than data of
that size could hold.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from emcube.errors import CatalogError

__all__ = ["data_file", "forget_unpacked", "is_archive"]

_MAX_MEMBERS = 100_000
#: Counts pack well, but an archive that grows more than so many times, and to more than so many bytes, is
#: one that was made to fill a disk.
_MAX_GROWTH, _GROWTH_BYTES = 200, 2**30
_PART = 2**20
#: What emcube does not unpack, and says so.
_OTHERS = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst")


def is_archive(name: str) -> bool:
    """Whether a file is an archive by its name, of whatever kind."""
    return name.lower().endswith((".zip", *_OTHERS))


def data_file(path: Path, member: str | None, where: str) -> Path:
    """The file to open: the fetched one itself, or the one within where it is an archive.

    Parameters
    ----------
    path : Path
        The fetched file, whose checksum was compared.
    member : str, optional
        Which file of the archive; needed where several could be meant.
    where : str
        The entry, for messages.

    Returns
    -------
    Path
        `path`, or a file below ``NAME.unpacked`` beside it.

    Raises
    ------
    CatalogError
        The archive is damaged, of a kind that is not unpacked, dangerous, or none or several of its files
        could be meant.
    OSError
        It cannot be unpacked, as where the disk is full.
    """
    if not is_archive(path.name):
        if member:
            raise CatalogError(
                f"{where} names the member {member!r}, but {path.name} is no archive, expected a .zip file",
                hint="leave member out of the entry, or correct its filename",
            )
        return path
    if not path.name.lower().endswith(".zip"):
        raise CatalogError(
            f"{where}: {path.name} is an archive of a kind that is not unpacked, expected .zip",
            hint=f"it lies at {path}: unpack it yourself, and ingest the file that is meant",
        )
    try:
        with zipfile.ZipFile(path) as archive:
            members = _checked(archive, path, where)
            chosen = _chosen(members, member, path, where)
            folder = _folder(path)
            if not folder.is_dir():
                _unpack(archive, members, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise CatalogError(
            f"{where}: the archive {path.name} is damaged or packed in a way that is not read: {error}",
            hint="the bytes are those that the catalog means: ask whoever keeps the data",
        ) from None
    return folder / chosen


def forget_unpacked(path: Path) -> None:
    """Remove what was unpacked of a fetched file; the file itself stays."""
    folder = _folder(path)
    if folder.is_dir():
        shutil.rmtree(folder)


def _folder(path: Path) -> Path:
    return path.with_name(f"{path.name}.unpacked")


def _checked(archive: zipfile.ZipFile, path: Path, where: str) -> dict[str, zipfile.ZipInfo]:
    """The archive's files by name, if all of them may be unpacked."""

    def refuse(found: str, expected: str) -> CatalogError:
        return CatalogError(
            f"{where}: the archive {path.name} is not unpacked: it {found}, expected {expected}",
            hint="nothing was unpacked; ask whoever keeps the data, and do not unpack it by other means",
        )

    listed = archive.infolist()
    if len(listed) > _MAX_MEMBERS:
        raise refuse(f"has {len(listed)} members", f"at most {_MAX_MEMBERS}")
    members: dict[str, zipfile.ZipInfo] = {}
    folded: set[str] = set()
    for info in listed:
        name = info.filename
        # What zipfile read of the name: it cuts names at a NUL, and takes \ for / on Windows.
        inside = _inside(info.orig_filename) and _inside(name)
        if not inside:
            raise refuse(f"has the member {info.orig_filename!r}", "names within its own folder")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise refuse(f"has a link or device, {name!r}", "files and folders")
        if info.flag_bits & 0x1:
            raise refuse(
                f"has a member under a password, {name!r}", "files that everybody can read"
            )
        if info.is_dir():
            continue
        if name.casefold() in folded:
            raise refuse(f"has {name!r} twice", "each file once")
        folded.add(name.casefold())
        members[name] = info
    total = sum(info.file_size for info in members.values())
    packed = max(1, path.stat().st_size)
    if total > _GROWTH_BYTES and total > _MAX_GROWTH * packed:
        raise refuse(
            f"would grow from {packed} to {total} bytes", f"at most {_MAX_GROWTH} times as many"
        )
    free = shutil.disk_usage(path.parent).free
    if total > free:
        raise CatalogError(
            f"{where}: the archive {path.name} holds {total} bytes, and {free} are free in {path.parent}",
            hint="make room, or set EMCUBE_CACHE to a folder on a larger disk",
        )
    return members


def _inside(name: str) -> bool:
    """Whether a member's name stays within its folder, on any system."""
    if not name or "\0" in name or "\\" in name or ":" in name:
        return False
    parts = PurePosixPath(name).parts
    return not name.startswith("/") and ".." not in parts and len(name) < 1000


def _chosen(members: dict[str, zipfile.ZipInfo], member: str | None, path: Path, where: str) -> str:
    """Name of the file that is meant."""
    readable = sorted({found for name in members if (found := _readable(name)) is not None})
    if member is not None:
        if member in members or member in readable:
            return member
        listed = ", ".join(map(repr, readable[:10])) or "none that can be read"
        raise CatalogError(
            f"{where}: the archive {path.name} has no member {member!r}: it has {listed}",
            hint="correct member in the entry",
        )
    if len(readable) == 1:
        return readable[0]
    found = (
        f"{len(readable)} of its files could be meant"
        if readable
        else "none of its files can be read"
    )
    listed = ", ".join(map(repr, (readable or sorted(members))[:10])) or "nothing"
    raise CatalogError(
        f"{where}: the archive {path.name} holds {listed}: {found}, expected one",
        hint="name it in the entry: --set member=NAME"
        if readable
        else f"it lies at {path}: unpack it yourself, and ingest the file that is meant",
    )


def _readable(name: str) -> str | None:
    """The file or .zspy folder that a member is (a part of), if emcube reads its format."""
    from emcube.io.readers import format_of

    parts = PurePosixPath(name).parts
    if parts[0] == "__MACOSX" or parts[-1].startswith("."):
        return None
    for n, part in enumerate(parts[:-1], 1):
        if part.lower().endswith(".zspy"):
            return "/".join(parts[:n])
    return name if format_of(PurePosixPath(name).suffix) is not None else None


def _unpack(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: Path) -> None:
    """Unpack beside the place, then move: an unpacking that was killed is not taken for whole."""
    partial = folder.with_name(f".{folder.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    try:
        for name, info in members.items():
            _unpack_one(archive, info, partial / name)
        partial.rename(folder)
    except Exception:
        # Half an archive is worth nothing, and may be large.
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _unpack_one(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise zipfile.BadZipFile(f"{info.filename!r} lies within a file") from None
    with archive.open(info) as packed, target.open("xb") as file:
        done = 0
        # zipfile checks the CRC at the end, and gives no more than the table promises.
        while block := packed.read(_PART):
            done += len(block)
            file.write(block)
    if done != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename!r} has {done} bytes, expected {info.file_size}")
