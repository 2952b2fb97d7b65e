"""Checkpoints: what sweeps have found so far, on disk, so that a run that was stopped goes on.

A run is deterministic: started again it asks the same questions in the same order. Inside `checkpointing`
every call of `run_sweep` and `run_sweeps` gets a number, and from time to time what is known is written: the
outcomes of finished calls, and of the call that is running the state after its last round. A run that is
started again replays what happens between the calls, is given finished outcomes without a pass over the data,
and goes on in the round after the last one that was kept. What was not kept is computed again, to the same
bits.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import logging
import math
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from emcube.disk import exclusive, replace_file
from emcube.engine.identity import content_of, shape_of
from emcube.engine.memory import arrays_of
from emcube.engine.source import BlockSource
from emcube.engine.states import (
    MAGIC,
    UnknownKindError,
    bytes_of,
    copied,
    fingerprint,
    pack,
    unpack,
)
from emcube.engine.sweep import Outcome, Sweep
from emcube.errors import EmcubeError, InputError, StoreError

__all__ = ["Call", "Checkpoints", "Journal", "checkpointing", "current_checkpoints"]
__all__ += ["look", "remembered"]

INTERVAL = 30.0
"""Seconds between two checkpoints, at least."""

VARIABLE = "EMCUBE_CHECKPOINT"
"""Environment variable that sets the interval."""

_RATE = 2e6
"""Bytes that are worth keeping for each second that they took to compute: a disk writes a hundred times as
many, so that checkpoints cost at most about a hundredth of the time."""

_MOST_WAITING = 256 << 20
"""Bytes of finished outcomes that may wait for the next checkpoint."""

_SUFFIX = ".checkpoint"
_ANSWERS = "answers"
_CALLS = "calls"
_SCOPES = "in-"
_NAME = re.compile(r"([0-9]{6}|[0-9a-f]{32})\.checkpoint")
_PARTIAL = re.compile(rf"\.{_NAME.pattern}\.[0-9]+\.partial")

_COUNTS = {"sweep": ("rounds", "max_rounds"), "journal": ("groups", "n_groups")}
"""Whole numbers that a checkpoint of each kind says of itself."""

_log = logging.getLogger(__name__)
_on_this_thread = threading.local()


def current_checkpoints() -> Checkpoints | None:
    """The checkpoints in force on this thread, or None."""
    found: Checkpoints | None = getattr(_on_this_thread, "checkpoints", None)
    return found


@contextmanager
def checkpointing(
    folder: str | os.PathLike[str],
    *,
    interval: float | None = None,
    identity: str | None = None,
) -> Iterator[Checkpoints]:
    """Keep checkpoints of all fits inside this context, and go on from those of an earlier try.

    Parameters
    ----------
    folder : path-like
        Where they lie; made if missing. It should hold nothing else, and serve one script. Other files in it
        are never removed.
    interval : float, optional
        Seconds between two checkpoints, at least; 0 writes after each round. Default
        ``EMCUBE_CHECKPOINT``, or 30.
    identity : str, optional
        Name of data and parameters together, where something else makes sure that they are the same (a
        recipe's ``run_id``). Default: values in memory are compared by their digest; stored ones by name and
        by the values of three blocks.

    Yields
    ------
    Checkpoints

    Raises
    ------
    StoreError
        The folder cannot be made, or another process uses it.
    InputError
        `interval` is not a number from 0 on.

    Notes
    -----
    Fits inside must be asked for in the same order each time, on the thread that entered the context. A
    ``random_state`` that was left open is drawn once and kept. When the context ends without an error the
    checkpoints are removed: save what was found inside it. When it ends with one (an interrupt, a lost
    worker) the latest state is written first. A checkpoint that is damaged, or belongs to something else, is
    named in a warning and not used. Results have the bits of a run that was never stopped, on the same kind
    of processor.

    Examples
    --------
    >>> import numpy as np, emcube as em, tempfile
    >>> counts = np.random.default_rng(0).poisson(1.0, (50, 20))
    >>> with tempfile.TemporaryDirectory() as folder, em.engine.checkpointing(folder):
    ...     model = em.MiniBatchNMF(2, random_state=0).fit(counts)
    >>> model.components_.shape
    (2, 20)
    """
    place = Path(folder)
    seconds = _interval(interval)
    with _own_folder(place):
        kept = Checkpoints(place, seconds, identity)
        before = current_checkpoints()
        _on_this_thread.checkpoints = kept
        try:
            yield kept
        except BaseException:
            kept.flush(now=True)
            raise
        finally:
            _on_this_thread.checkpoints = before
        kept.clear()


def _interval(wish: float | None) -> float:
    text: Any = wish
    if wish is None:
        text = os.environ.get(VARIABLE, "").strip() or INTERVAL
    try:
        seconds = float(text)
    except (TypeError, ValueError):
        seconds = math.nan
    if isinstance(text, bool) or not seconds >= 0:
        raise InputError(
            f"the interval between checkpoints must be seconds from 0 on, got {text!r}",
            hint=f"pass interval= or set {VARIABLE} to a number, such as 30",
        )
    return seconds


@contextmanager
def _own_folder(folder: Path) -> Iterator[None]:
    """Make a folder, lock it, and remove it afterwards where nothing is left in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"checkpoints cannot be kept in {str(folder)!r}: {error.strerror or error}",
            hint="choose a folder that can be written",
        ) from error
    with exclusive(folder / "lock", f"checkpoints in {str(folder)!r}"):
        try:
            yield
        finally:
            _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    """Remove a folder in which nothing is left but a lock."""
    lock = folder / "lock"
    try:
        if {p.name for p in folder.iterdir()} == {"lock"} and not lock.stat().st_size:
            lock.unlink()
            folder.rmdir()
    except OSError as error:
        _log.debug("the folder %s stays: %s", folder, error)


@dataclass(frozen=True)
class _Progress:
    """How far a call has come."""

    state: Any
    n_rounds: int
    converged: bool
    history: list[float]
    finished: bool


@dataclass
class _Entry:
    """Something that waits for the next checkpoint; functions are called when it is written."""

    header: dict[str, Any]
    path: Callable[[], Path]
    key: Callable[[], str]
    value: Callable[[], Any]
    n_bytes: int


class Checkpoints:
    """The checkpoints of one run.

    Parameters
    ----------
    folder : Path
    interval : float
        Seconds.
    identity : str or None
        As in `checkpointing`.

    Attributes
    ----------
    restored : int
        Outcomes and states that were found and used.
    seconds : float
        Time spent on writing.
    part : str
        Part of the run that is under way (the outermost `scope`); "" for none.
    """

    def __init__(self, folder: Path, interval: float, identity: str | None) -> None:
        self.folder, self.interval, self.identity = folder, interval, identity
        self.restored = 0
        self.seconds = 0.0
        self.part = ""
        self._scope = ""
        self._numbers: dict[str, int] = {}
        self._waiting: dict[Hashable, _Entry] = {}
        self._written = time.monotonic()
        self._failed = False
        self._contents: dict[str, Any] = {}
        self._said: set[str] = set()
        for own in _own_folders(folder):
            _unlink(_partials(own))
        # Only what an earlier try left is looked for; one that begins has nothing to read.
        self._found = set(_files(folder))

    # -------------------------------------------------------------------------------------- naming

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Number the calls of one part of a run (a step of a recipe) on their own.

        Parts that are finished need not be run again to give later ones the same numbers.
        """
        outer, self._scope = self._scope, name
        self._numbers[name] = 0
        self.part = self.part or name
        try:
            yield
        finally:
            self._scope = outer
            self.part = self.part if outer else ""

    def _next(self) -> Path:
        number = self._numbers.get(self._scope, 0)
        self._numbers[self._scope] = number + 1
        return self._folder_of(self._scope) / f"{number:06d}{_SUFFIX}"

    def _folder_of(self, scope: str) -> Path:
        return self.folder / (f"{_SCOPES}{scope}" if scope else _CALLS)

    @cached_property
    def _bound(self) -> str:
        """What all checkpoints here are bound to: the run, and the libraries that it computes with."""
        versions = [importlib.metadata.version(n) for n in ("emcube", "numpy", "scipy", "numba")]
        return fingerprint(self.identity, platform.python_version(), *versions)

    # ------------------------------------------------------------------------------------- reading

    def _read(
        self, path: Path, key: Callable[[], str], fits: Callable[[Any], bool]
    ) -> tuple[dict[str, Any], Any] | None:
        """What an earlier try left at a place, if it belongs there and the value fits."""
        if path not in self._found:
            return None
        try:
            header, value = _load(path, fits)
        except StoreError as error:
            self._refuse(path, f"it is damaged: {error.message}")
            return None
        if header.get("bound") != self._bound:
            self._refuse(path, "it is of another run or other versions of the libraries")
            return None
        try:
            same = header.get("key") == key()
        except UnknownKindError:
            same = False
        if not same:
            self._refuse(path, "it is of other data, parameters or another order of calls")
            return None
        self.restored += 1
        return header, value

    def _refuse(self, path: Path, why: str) -> None:
        self._found.discard(path)
        _log.warning("the checkpoint %s is not used: %s; what it held is computed again", path, why)

    # ------------------------------------------------------------------------------------- keeping

    def call(
        self, sweep: Sweep, source: BlockSource, seed: int, max_rounds: int, state: Any
    ) -> Call:
        """Number a call of a sweep."""
        what = (sweep, seed, max_rounds, state)
        return Call(self, self._next(), sweep.name, source, what, max_rounds)

    def journal(self, name: str, source: BlockSource, what: tuple[Any, ...]) -> Journal:
        """Number a writing of per-pixel output, whose finished groups are noted."""
        return Journal(self, self._next(), name, source, what)

    def remembered(self, name: str, make: Callable[[], Any], kind: type = object) -> Any:
        """A small value of a kind that is made once and the same in every try, such as a drawn seed."""
        path = self._next()

        def key() -> str:
            return fingerprint("value", name)

        found = self._read(path, key, lambda value: isinstance(value, kind))
        if found is not None:
            return found[1]
        # Calls in here are numbered on their own: another try does not make them.
        with self.scope(f"{self._scope}-{path.stem}"):
            value = make()
        header = {"kind": "value", "name": name}
        self.add(path, header, key, lambda: value, n_bytes=bytes_of(value))
        return value

    def answer(self, source: BlockSource, share: Any) -> Outcome | None:
        """An answer that sweeps share (see `Sweep.answers_to`), from an earlier try."""
        if not any(path.parent.name == _ANSWERS for path in self._found):
            return None
        try:
            key = self._answer_key(source, share)
        except UnknownKindError:
            return None
        found = self._read(self._answer_path(key), lambda: key, _is_progress)
        return None if found is None else _outcome(found[1])

    def keep_answer(
        self,
        source: BlockSource,
        share: Any,
        name: str,
        outcome: Outcome,
        seconds: float,
    ) -> None:
        """Keep an answer that sweeps share, if it is worth it.

        Read-only, nobody can change it any more; otherwise a copy is kept.
        """
        if not self.worth(outcome, seconds):
            return
        try:
            fixed = not any(a.flags.writeable for a in arrays_of(outcome))
            value = _progress(outcome) if fixed else copied(_progress(outcome))
        except UnknownKindError as error:
            _log.info("%s is not kept in checkpoints: %s", name, error)
            return

        def key() -> str:
            return self._answer_key(source, share)

        header = {"kind": "answer", "name": name, "rounds": 1, "finished": True}
        place = (_ANSWERS, source.token, source.plan, share)
        self.add(
            place,
            header,
            key,
            lambda: value,
            path=lambda: self._answer_path(key()),
            n_bytes=bytes_of(outcome),
        )

    def _answer_key(self, source: BlockSource, share: Any) -> str:
        return fingerprint("answer", self._of_source(source, named=True), share)

    def _answer_path(self, key: str) -> Path:
        return self.folder / _ANSWERS / f"{key}{_SUFFIX}"

    def worth(self, value: Any, seconds: float) -> bool:
        """Whether a value took so long that keeping it costs little beside."""
        return self.interval == 0 or bytes_of(value) <= _RATE * seconds

    def add(
        self,
        place: Hashable,
        header: dict[str, Any],
        key: Callable[[], str],
        value: Callable[[], Any],
        *,
        path: Callable[[], Path] | None = None,
        n_bytes: int = 0,
    ) -> None:
        """Let a value wait for the next checkpoint, which is written if it is time.

        Parameters
        ----------
        place : hashable
            What waits for the same place is replaced. Without `path` it is the path.
        header : dict
            What the checkpoint says of itself.
        key, value, path : callable
            Asked when it is written. Nobody may change the value until then.
        n_bytes : int
            Of the value, about.
        """
        where = path or (lambda: Path(str(place)))
        self._waiting.pop(place, None)
        self._waiting[place] = _Entry({"scope": self._scope, **header}, where, key, value, n_bytes)
        self.flush()

    def forget(self, path: Path) -> None:
        """Let go of what waits for a place."""
        self._waiting.pop(path, None)

    # ------------------------------------------------------------------------------------- writing

    def flush(self, *, now: bool = False) -> bool:
        """Write what waits, if it is time or if it must be now; tell whether all is on disk.

        A disk that is full does not stop the run: a warning says that it goes on without new checkpoints.
        """
        if not self._waiting:
            return True
        if not (now or self._is_time()):
            return False
        began = time.monotonic()
        try:
            for place, entry in list(self._waiting.items()):
                self._write(entry)
                del self._waiting[place]
        except (OSError, EmcubeError) as error:
            self._warn_of_disk(error)
        else:
            self._failed = False
        self._written = time.monotonic()
        self.seconds += self._written - began
        return not self._waiting

    def _is_time(self) -> bool:
        waited = time.monotonic() - self._written
        waiting = sum(entry.n_bytes for entry in self._waiting.values())
        if waited >= self.interval and waiting <= _RATE * waited:
            return True
        return self.interval == 0 or (waiting > _MOST_WAITING and waiting <= _RATE * waited)

    def _write(self, entry: _Entry) -> None:
        try:
            header = {**entry.header, "bound": self._bound, "key": entry.key(), "saved": _now()}
            parts, path = pack(header, entry.value()), entry.path()
        except UnknownKindError as error:
            if entry.header["name"] not in self._said:
                self._said.add(entry.header["name"])
                _log.info("%s is not kept in checkpoints: %s", entry.header["name"], error)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, parts)

    def _warn_of_disk(self, error: Exception) -> None:
        if self._failed:
            return
        self._failed = True
        _log.warning(
            "a checkpoint could not be written in %s: %s; the run goes on, and would go on "
            "from an earlier checkpoint (make room on the disk)",
            self.folder,
            getattr(error, "strerror", None) or error,
        )

    def drop(self, scope: str) -> None:
        """Remove the checkpoints of a part of the run that is finished."""
        folder = self._folder_of(scope)
        for place in [p for p in self._waiting if isinstance(p, Path) and p.parent == folder]:
            del self._waiting[place]
        _remove(folder)

    def clear(self) -> None:
        """Remove all checkpoints: the run is complete."""
        self._waiting.clear()
        for folder in _own_folders(self.folder):
            _remove(folder)

    # -------------------------------------------------------------------------------- what it is of

    def _of_source(self, source: BlockSource, *, named: bool) -> tuple[Any, ...]:
        """Identity of what blocks hold, in any process."""
        inner = getattr(source, "source", None)
        if inner is not None:
            made = source.token.removeprefix(inner.token)
            shape = (source.n_pixels, source.n_channels)
            return (type(source).__name__, made, shape, self._of_source(inner, named=named))
        content = None if self.identity is not None and not named else self._content(source)
        return (shape_of(source), content)

    def _content(self, source: BlockSource) -> Any:
        token = source.token
        if token not in self._contents:
            self._contents[token] = content_of(source, trusted=self.identity is not None)
        return self._contents[token]


@dataclass(eq=False)
class Call:
    """One call of a sweep, by its number.

    Parameters
    ----------
    checkpoints : Checkpoints
    path : Path
        Where its checkpoint lies.
    name : str
    source : BlockSource
    what : tuple
        What decides the outcome besides the source.
    max_rounds : int

    Attributes
    ----------
    rounds : int
        Those that were made, in this try or an earlier one.
    """

    checkpoints: Checkpoints
    path: Path
    name: str
    source: BlockSource
    what: tuple[Any, ...]
    max_rounds: int
    rounds: int = 0
    _key: list[str] = field(default_factory=list)

    def key(self) -> str:
        """Fingerprint of everything that decides the outcome."""
        if not self._key:
            of = self.checkpoints._of_source(self.source, named=False)
            self._key.append(fingerprint("call", of, self.what))
        return self._key[0]

    def restore(self) -> tuple[Outcome, bool] | None:
        """What an earlier try found, and whether the call was finished then."""
        found = self.checkpoints._read(self.path, self.key, _is_progress)
        if found is None:
            return None
        self.rounds = found[1].n_rounds
        return _outcome(found[1]), found[1].finished

    def progress(self, outcome: Outcome) -> None:
        """Note the state after a round; nobody changes it while the call lasts."""
        self.rounds = outcome.n_rounds
        self.checkpoints.add(
            self.path,
            self._header(outcome, False),
            self.key,
            lambda: _progress(outcome, False),
            n_bytes=bytes_of(outcome),
        )

    def done(self, outcome: Outcome, seconds: float) -> None:
        """Note how the call ended; a copy, since the caller may change what it is given."""
        if not self.checkpoints.worth(outcome, seconds):
            self.checkpoints.forget(self.path)
            return
        try:
            kept = copied(_progress(outcome))
        except UnknownKindError as error:
            self.checkpoints.forget(self.path)
            _log.info("%s is not kept in checkpoints: %s", self.name, error)
            return
        self.checkpoints.add(
            self.path,
            self._header(outcome, True),
            self.key,
            lambda: kept,
            n_bytes=bytes_of(kept),
        )

    def save(self) -> int:
        """Write the latest state now; return the rounds that are on disk, 0 where they may be older."""
        written = self.checkpoints.flush(now=True)
        return self.rounds if written and self.path.is_file() else 0

    def _header(self, outcome: Outcome, finished: bool) -> dict[str, Any]:
        return {
            "kind": "sweep",
            "name": self.name,
            "rounds": outcome.n_rounds,
            "max_rounds": self.max_rounds,
            "finished": finished,
        }


@dataclass(eq=False)
class Journal:
    """Groups of blocks whose per-pixel output is written.

    Attributes
    ----------
    finished : set of int
        Those of earlier tries, and since.
    """

    checkpoints: Checkpoints
    path: Path
    name: str
    source: BlockSource
    what: tuple[Any, ...]
    finished: set[int] = field(default_factory=set)
    n_groups: int = 0

    def __post_init__(self) -> None:
        self.n_groups = len(self.source.plan.groups)
        found = self.checkpoints._read(self.path, self._key, _is_groups)
        if found is not None:
            self.finished = {int(i) for i in found[1]}

    def _key(self) -> str:
        of = self.checkpoints._of_source(self.source, named=False)
        return fingerprint("journal", of, self.what)

    def add(self, group: int) -> None:
        """Note that a group is written."""
        self.finished.add(group)
        header = {
            "kind": "journal",
            "name": self.name,
            "groups": len(self.finished),
            "n_groups": self.n_groups,
            "finished": len(self.finished) == self.n_groups,
        }
        self.checkpoints.add(self.path, header, self._key, self._groups)

    def _groups(self) -> Any:
        return np.array(sorted(self.finished), dtype=np.int64)


def _progress(outcome: Outcome, finished: bool = True) -> _Progress:
    return _Progress(
        outcome.state, outcome.n_rounds, outcome.converged, list(outcome.history), finished
    )


def _outcome(kept: _Progress) -> Outcome:
    return Outcome(kept.state, kept.n_rounds, kept.converged, list(kept.history))


def remembered(name: str, make: Callable[[], Any], kind: type = object) -> Any:
    """Make a small value, or inside `checkpointing` give the one of that kind that an earlier try made."""
    kept = current_checkpoints()
    return make() if kept is None else kept.remembered(name, make, kind)


def look(folder: Path) -> list[dict[str, Any]]:
    """What the checkpoints in a folder say of themselves, oldest first; damaged ones are left out.

    Returns
    -------
    list of dict
        ``kind``, ``name``, ``scope``, ``saved`` (UTC) and, of sweeps, ``rounds``, ``max_rounds`` and
        ``finished``; of journals ``groups`` and ``n_groups``.
    """
    found = []
    for path in _files(folder):
        try:
            header, _ = _load(path, lambda value: True)
        except StoreError:
            continue
        found.append(header)
    return sorted(found, key=lambda header: str(header.get("saved", "")))


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


# ------------------------------------------------------------------------------ files that are our own


def _load(path: Path, fits: Callable[[Any], bool]) -> tuple[dict[str, Any], Any]:
    """Header and value of a file.

    Raises
    ------
    StoreError
        It cannot be read, or is no checkpoint with a value that fits.
    """
    if not path.is_file():
        raise StoreError("it is no file")
    try:
        data = path.read_bytes()
    except (OSError, MemoryError) as error:
        raise StoreError(f"it cannot be read ({type(error).__name__}: {error})") from error
    header, value = unpack(data)
    if not _is_sound(header):
        raise StoreError("its header says too little")
    if not fits(value):
        raise StoreError(f"it holds a {type(value).__name__} that does not fit")
    return header, value


def _is_sound(header: dict[str, Any]) -> bool:
    if not all(isinstance(header.get(k), str) for k in ("kind", "name", "scope", "saved")):
        return False
    return all(type(header.get(k)) is int for k in _COUNTS.get(header["kind"], ()))


def _is_progress(value: Any) -> bool:
    if not isinstance(value, _Progress):
        return False
    # Read from a file, fields may hold anything.
    rounds: Any = value.n_rounds
    flags: tuple[Any, ...] = (value.converged, value.finished)
    history: Any = value.history
    if type(rounds) is not int or rounds < 0 or not all(isinstance(f, bool) for f in flags):
        return False
    return isinstance(history, list) and all(isinstance(x, float) for x in history)


def _is_groups(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind == "i"


def _own_folders(folder: Path) -> list[Path]:
    """Sub-folders in which checkpoints lie."""
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        _log.debug("the folder %s is not looked through: %s", folder, error)
        return []
    return [
        p
        for p in inside
        if (p.name in (_CALLS, _ANSWERS) or p.name.startswith(_SCOPES))
        and p.is_dir()
        and not p.is_symlink()
    ]


def _files(folder: Path) -> list[Path]:
    """What lies where checkpoints of a run do, whether or not it is one."""
    return [p for own in _own_folders(folder) for p in _named(own, _NAME)]


def _partials(own: Path) -> list[Path]:
    """What a process that was killed while it wrote has left."""
    return [p for p in _named(own, _PARTIAL) if _is_ours(p, whole=False)]


def _named(own: Path, name: re.Pattern[str]) -> list[Path]:
    try:
        return sorted(p for p in own.iterdir() if name.fullmatch(p.name))
    except OSError as error:
        _log.debug("the folder %s is not looked through: %s", own, error)
        return []


def _is_ours(path: Path, *, whole: bool = True) -> bool:
    """Whether a file begins as checkpoints do; what was cut short may end before that."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
    except OSError as error:
        _log.debug("%s is not looked at: %s", path, error)
        return False
    return head == MAGIC if whole else MAGIC.startswith(head)


def _remove(folder: Path) -> None:
    """Remove the checkpoints in a folder, and the folder where nothing else lies in it."""
    if not folder.is_dir() or folder.is_symlink():
        return
    _unlink([p for p in _named(folder, _NAME) if _is_ours(p)] + _partials(folder))
    try:
        folder.rmdir()
    except OSError:  # something else lies there, and stays
        _log.debug("%s is not empty and stays", folder)


def _unlink(paths: list[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning(
                "the checkpoint %s could not be removed: %s; remove it by hand",
                path,
                error.strerror or error,
            )
