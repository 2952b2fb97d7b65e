"""Keep an outcome in a folder of its own: result, recipe, script and record, all or nothing."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.errors import InputError, StoreError

if TYPE_CHECKING:
    from emcube.explore.actions import Action
    from emcube.explore.outcomes import Outcome

__all__ = ["RECORD", "Parcel", "save_parcel"]

RECORD = "record.json"
"""What was done, in order; by it a folder that was saved so is known again."""

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Parcel:
    """What is saved.

    Attributes
    ----------
    outcome : Outcome
    recipe, script : str
        Texts, for this folder.
    actions : iterable of Action
    cube : Path or None
        A store that has no other place, and its name in the folder.
    """

    outcome: Outcome
    recipe: str
    script: str
    actions: Iterable[Action]
    cube: Path | None = None

    def record(self) -> dict[str, Any]:
        """The record as plain data."""
        return {
            "emcube_explorer": FORMAT,
            "run_id": self.outcome.run_id,
            "actions": [action.to_json() for action in self.actions],
        }


def save_parcel(parcel: Parcel, folder: Path, *, overwrite: bool) -> Path:
    """Write a parcel; the folder appears when it is whole.

    Raises
    ------
    InputError
        The folder holds something else, or was saved before and `overwrite` is False.
    StoreError
        It cannot be written.
    """
    target = folder.expanduser().absolute()
    _require_free(target, overwrite)
    if target.is_relative_to(parcel.outcome.result.path.resolve()):
        raise InputError(
            f"save: {str(target)!r} lies in the result itself", hint="choose another folder"
        )
    new = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        new.mkdir(parents=True)
        shutil.copytree(parcel.outcome.result.path, new / "result")
        if parcel.cube is not None:
            shutil.copytree(parcel.cube, new / parcel.cube.name)
        (new / "recipe.yaml").write_text(parcel.recipe, encoding="utf-8")
        (new / "script.py").write_text(parcel.script, encoding="utf-8")
        record = json.dumps(parcel.record(), indent=1, ensure_ascii=False, default=str)
        (new / RECORD).write_text(record, encoding="utf-8", errors="backslashreplace")
        _put(new, target)
    except OSError as error:
        raise StoreError(
            f"save: {str(target)!r} cannot be written: {error.strerror or error}",
            hint="check permissions and space; nothing is left of it",
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return target


def _put(new: Path, target: Path) -> None:
    """Move a finished folder to its place; what was saved there before goes when the new one is there."""
    if not target.exists():
        new.rename(target)
        return
    old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.old")
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)


def _require_free(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(
            f"save: {str(target)!r} is a file, expected a folder", hint="choose another name"
        )
    if not any(target.iterdir()):
        target.rmdir()
        return
    if not _was_saved(target):
        raise InputError(
            f"save: the folder {str(target)!r} holds something else",
            hint="choose a new folder; it is made",
        )
    if not overwrite:
        raise InputError(
            f"save: the folder {str(target)!r} holds an analysis that was saved before",
            hint="choose a new folder, or overwrite it",
        )


def _was_saved(folder: Path) -> bool:
    try:
        record: Mapping[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and "emcube_explorer" in record
