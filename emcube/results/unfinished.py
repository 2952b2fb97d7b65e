"""How far an unfinished result got."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emcube.engine.checkpoint import look
from emcube.results.tree import checkpoint_folder, node_attributes

__all__ = ["progress_of", "progress_text"]


def progress_of(path: Path, root: Mapping[Any, Any]) -> dict[str, Any]:
    """Describe how far the run that writes a result has got.

    Parameters
    ----------
    path : Path
        The result.
    root : mapping
        Its root attributes.

    Returns
    -------
    dict
        JSON values: ``steps``, the names of all in order; ``finished``, those that are done; ``running``, the
        first that is not, or None; ``checkpoint``, what the latest checkpoint says of itself (``scope``, the
        step; ``name``; ``saved``; and rounds or groups of blocks), or None.
    """
    steps = [str(next(iter(step.values()))["name"]) for step in root["recipe"]["steps"]]
    finished = [name for name in steps if _is_finished(path / name)]
    waiting = [name for name in steps if name not in finished]
    headers = [
        {k: h[k] for k in ("name", "scope", "saved", *_COUNTS) if k in h}
        for h in look(checkpoint_folder(path))
        if h.get("kind") in ("sweep", "journal")
    ]
    return {
        "steps": steps,
        "finished": finished,
        "running": waiting[0] if waiting else None,
        "checkpoint": headers[-1] if headers else None,
    }


_COUNTS = ("rounds", "max_rounds", "groups", "n_groups")


def progress_text(found: Mapping[str, Any]) -> str:
    """Say how far a run got, in a few words."""
    done, steps = found["finished"], found["steps"]
    text = f"{len(done)} of {len(steps)} steps are finished"
    if done:
        text += f" ({', '.join(done)})"
    last = found["checkpoint"]
    if last is None:
        return text
    if "groups" in last:
        how_far = f"{last['groups']} of {last['n_groups']} parts"
    else:
        how_far = f"{last['rounds']} of at most {last['max_rounds']} rounds"
    return (
        f"{text}, and of {last['scope']} {how_far} of {last['name']!r} ({last['saved'][:19]} UTC)"
    )


def _is_finished(folder: Path) -> bool:
    marker = node_attributes(folder).get("emcube")
    return isinstance(marker, dict) and marker.get("complete") is True
